"""Do pruned models export? Families of all kinds, half pruned, to .tflite and .pte, and run.

    python benchmarks/coverage_export.py --families ../shared/bench/timm_families.json --cache .cache/coverage-export

The models and the half that goes are those of benchmarks/coverage.py. Each file answers random images in its runtime on
this machine; the signal to noise ratio is against the pruned model in torch (goal: 60 dB). The unpruned model is
exported as well: a format that refuses that one is not asked for the pruned one. Resumes by family.
Writes benchmarks/results/coverage_export.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import export, keep_row, write_result
from coverage_edgeprune import half_of
from coverage_models import Family, build, random_input, read_families
from torch import Tensor

import edgeprune
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import EdgePruneError
from edgeprune.models.spec import Model
from edgeprune.recipe import Format
from edgeprune.reparam.merge import merge
from edgeprune.space.apply import apply_plan, count_parameters, make_plan
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import Subnet
from edgeprune.verify.execute import run_file
from edgeprune.verify.parity import sqnr_db

FAMILIES = (
    *("resnet", "densenet", "regnet", "mobilenetv3", "ghostnet", "starnet", "byobnet", "repvit", "fastvit"),
    *("convnext", "hgnet", "vision_transformer", "pit", "vision_transformer_relpos", "mobilevit", "edgenext"),
    *("efficientformer_v2", "levit", "pvt_v2", "mlp_mixer"),
)
FORMATS: tuple[Format, ...] = ("tflite", "pte")
GOAL_DB = 60.0
IMAGES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", type=Path, required=True, help="timm_families.json")
    parser.add_argument("--cache", type=Path, required=True, help="where finished families and their files lie (made)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="families; no result file is written")
    arguments = parser.parse_args()
    families = {family.name: family for family in read_families(arguments.families)}
    chosen = arguments.only or FAMILIES
    arguments.cache.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for name in chosen:
        done = arguments.cache / f"{name}.json"
        if not done.exists():
            begin = time.monotonic()
            record = measure(families[name], arguments.cache / name)
            keep_row(done, {**record, "seconds": round(time.monotonic() - begin, 1)})
        found[name] = json.loads(done.read_text())
        print(_row(name, found[name]), flush=True)
    counts = {key: _count(found, key) for key in FORMATS}
    if not arguments.only:
        settings = {"goal_db": GOAL_DB, "images": IMAGES, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}
        path = write_result("coverage_export", {"settings": settings, "counts": counts, "families": found})
        print(f"wrote {path}", file=sys.stderr)
    print(json.dumps(counts))


def measure(family: Family, folder: Path) -> dict[str, Any]:
    """SQNR in dB by format, of the pruned model; what failed says why."""
    module, example = build(family)
    model = edgeprune.load(family.model)
    images = torch.cat([random_input(family, seed) for seed in range(IMAGES)])
    structure = find_structure(module, example)
    pruned = apply_plan(
        module, make_plan(f"timm:{family.model}", module, structure, Subnet(half_of(structure))), example
    )
    record: dict[str, Any] = {
        "model": family.model,
        "share_removed": 1 - count_parameters(pruned) / count_parameters(module),
    }
    for kind, net in (("unpruned", module), ("pruned", pruned)):
        record[kind] = {
            name: answered(model.with_module(merge(net, example)), name, folder / kind, images) for name in FORMATS
        }
    return record


def answered(model: Model, name: Format, folder: Path, images: Tensor) -> dict[str, Any]:
    """Export to one format and run the file."""
    try:
        (manifest,) = export(model, folder, (name,), images, int8=False)
        outputs = run_file(LocalDevice(), folder / manifest.file, manifest, images.numpy()).outputs[0]
    except EdgePruneError as error:
        return {"why": str(error)[:600]}
    with torch.no_grad():
        wanted = torch.cat([model.module(image[None]) for image in images])
    return {"sqnr_db": round(sqnr_db(wanted.numpy(), outputs), 1)}


def _count(found: dict[str, Any], name: str) -> dict[str, int]:
    asked = [entry for entry in found.values() if "sqnr_db" in entry["unpruned"][name]]
    good = [entry for entry in asked if entry["pruned"][name].get("sqnr_db", 0.0) >= GOAL_DB]
    return {"exported_unpruned": len(asked), "pruned_and_close": len(good), "families": len(found)}


def _row(name: str, record: dict[str, Any]) -> str:
    cells = []
    for kind in ("unpruned", "pruned"):
        for format_ in FORMATS:
            entry = record[kind][format_]
            cells.append(f"{entry['sqnr_db']:6.1f}" if "sqnr_db" in entry else "failed")
    return f"{name:26} {record['share_removed']:4.0%}  unpruned {' '.join(cells[:2])}  pruned {' '.join(cells[2:])}"


if __name__ == "__main__":
    main()
