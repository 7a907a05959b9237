"""Which int8 files can be written at all? Full-size timm models, every format, one after the other.

    python benchmarks/int8_written.py --cache .cache/int8-written

Whether a toolkit can write a model depends on its operators and shapes, not on its weights, so the weights are random.
For each file: written or not and why, and the operators that stay in float because the quantizer cannot do them.
How good the files are is another question, which the verdict of a run answers. Resumes by file. Writes
benchmarks/results/int8_written.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import ROOT, keep_row, write_result

import edgeprune
from edgeprune.artifacts.export import export_each
from edgeprune.errors import EdgePruneError
from edgeprune.recipe import Format
from edgeprune.reparam.merge import merge

MODELS = (
    *("resnet18", "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_lite0", "regnety_002", "repvit_m0_9"),
    *("convnext_atto", "edgenext_xx_small", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"),
    *("swin_tiny_patch4_window7_224", "mobilevit_xxs", "efficientformer_l1", "levit_128s", "mixer_s32_224"),
)
FORMATS: tuple[Format, ...] = ("tflite", "pte", "onnx", "coreml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "int8-written", help="finished rows")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=MODELS, help="models; no result file is written")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only:
        file = arguments.cache / f"{name}.json"
        if not file.exists():
            keep_row(file, {"model": name, "files": files_of(name)})
        rows.append(json.loads(file.read_text()))
        told = {of: row["why"] or row["left_in_float"] or "written" for of, row in rows[-1]["files"].items()}
        print(name, told, flush=True)
    if tuple(arguments.only) == MODELS:
        found = [row for one in rows for row in one["files"].values()]
        write_result(
            "int8_written", {"files": len(found), "not_written": sum(bool(r["why"]) for r in found), "rows": rows}
        )


def files_of(name: str) -> dict[str, dict[str, Any]]:
    """Format -> what became of its int8 file."""
    torch.manual_seed(0)
    model = edgeprune.load(name)
    try:
        merged = model.with_module(merge(model.module.eval(), model.example_input()))
    except EdgePruneError as error:
        return {of: {"why": str(error), "left_in_float": {}, "seconds": 0.0} for of in FORMATS}
    images = torch.randn(4, *model.spec.input_size)
    return {of: written(merged, of, images) for of in FORMATS}


def written(merged: edgeprune.Model, of: Format, images: torch.Tensor) -> dict[str, Any]:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = export_each(
                merged,
                Path(folder),
                formats=(of,),
                int8=(of,),
                floats=False,
                calibration=images,
                reference_input=images[:1],
            )
            why = "; ".join(one.why for one in done.not_written)
            left = {kind: count for one in done.manifests for kind, count in one.left_in_float.items()}
        except EdgePruneError as error:
            why, left = error.what, {}
    return {"why": why, "left_in_float": left, "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    main()
