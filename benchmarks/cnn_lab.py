"""The nets of benchmarks/cnn_methods.py on the ARM64 machine of tests/lab: pruned for this one, measured on that.

    python benchmarks/cnn_lab.py --data ../shared/data --cache .cache/bench

Every net that is in the cache of cnn_methods.py (or those of `--nets`, `--only` and `--epochs`), in turns with its
original, fp32, over adb under icount; one that was measured is not measured again. Writes
benchmarks/results/cnn_lab.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from cnn_methods import OURS, folder_of
from cnn_nets import NETS, recipe_of
from common import ROOT, cifar10_npz, keep_row, write_merged, write_result
from lab import lab
from safetensors.torch import load_file
from torch import nn
from torch_pruning_peer import resized

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.latency.pairs import measure_ratio
from edgeprune.models.load import load_from
from edgeprune.models.spec import Model
from edgeprune.progress import Silent
from edgeprune.runs import open_run
from edgeprune.stages.context import Context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--nets", nargs="*", choices=NETS, default=NETS)
    parser.add_argument("--only", nargs="*", help="methods")
    parser.add_argument("--epochs", type=int, help="nets that were trained for so many")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    npz = cifar10_npz(arguments.data, cache)
    rows = []
    with lab() as machine, tempfile.TemporaryDirectory() as scratch, MeasuringExporter("litert") as exporter:
        for file in sorted((cache / "cnn_methods").glob("*/*.json")):
            row = json.loads(file.read_text())
            if "top1" not in row or row["net"] not in arguments.nets:
                continue
            if arguments.only and row["method"] not in arguments.only:
                continue
            if arguments.epochs and row["epochs"] != arguments.epochs:
                continue
            done = cache / "cnn_lab" / file.parent.name / file.name
            if not done.exists():
                base = load_from(recipe_of(row["net"], arguments.data, npz, "0.5x", 0).model)
                files = [Path(scratch) / "pruned.tflite", Path(scratch) / "original.tflite"]
                for module, path in zip((tuned(file.parent, row, base), base.module), files, strict=True):
                    write_merged(exporter, base.with_module(module), path)
                ratio = measure_ratio(machine.device, *files, runtime="litert", protocol="probe")  # icount has no noise
                keep_row(done, {"share": ratio.ratio, "original_ms": ratio.denominator.median_s * 1e3})
            found = json.loads(done.read_text())
            rows.append({key: row[key] for key in ("method", "net", "share", "epochs", "measured_share", "top1")})
            rows[-1] |= {"lab_share": found["share"], "lab_original_ms": found["original_ms"]}
            print(rows[-1], flush=True)
    print(f"wrote {write_result('cnn_lab', {'rows': rows})}")


def tuned(root: Path, row: dict[str, Any], base: Model) -> nn.Module:
    """The trained net of a row: from a run of ours, or as the peers' half keeps it."""
    if row["method"] in OURS:
        return Context(open_run(folder_of(root, row["method"])), Silent()).model("tune").module
    return resized(base, load_file(root / row["method"] / "tuned.safetensors"))


if __name__ == "__main__":
    main()
