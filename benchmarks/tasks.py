"""The worked examples to 0.5x of their measured latency: what is left of their metric, and which files are proven.

    python benchmarks/tasks.py --cache .cache/tasks

A U-Net, a detector of several outputs and a net for super-resolution (examples/), each trained on what it draws, then
`edgeprune run` with `prune.target = "0.5x"`, to .tflite, .pte and .onnx, int8 too. Finished runs are not made again.
Writes benchmarks/results/tasks.json.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import ROOT, whole_job, write_result

import edgeprune
from edgeprune.recipe import ExportSection
from edgeprune.recipe_file import resolve_paths
from edgeprune.report.data import ReportData

EXAMPLES = {
    "segmentation": "make_shapes.py",
    "detector": "make_detector.py",
    "superresolution": "make_pictures.py",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "tasks")
    parser.add_argument("--target", default="0.5x")
    parser.add_argument("--epochs", type=int, default=None, help="tune.epochs; the example's unless said")
    arguments = parser.parse_args()
    rows = {
        name: of_example(name, make, arguments.cache.resolve(), arguments.target, arguments.epochs)
        for name, make in EXAMPLES.items()
    }
    print(write_result("tasks", {"examples": rows}))


def of_example(name: str, make: str, cache: Path, target: str, epochs: int | None) -> dict[str, Any]:
    """One example, made and run in a folder of its own."""
    folder = cache / name
    if not folder.exists():
        shutil.copytree(ROOT / "examples" / name, folder)
        subprocess.run([sys.executable, make], cwd=folder, check=True)
    recipe = resolve_paths(edgeprune.read_recipe(folder / "recipe.toml"), folder).with_target(target)
    recipe = recipe.model_copy(update={"export": ExportSection(formats=("tflite", "pte", "onnx"))})
    if epochs is not None:
        recipe = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"epochs": epochs})})
    row = whole_job(recipe, folder / f"run-{target}")
    report = ReportData.model_validate_json((folder / f"run-{target}" / "report" / "report.json").read_bytes())
    before, after = (row["accuracy"][word] for word in ("original", "merged"))
    return {
        "metric": report.metric.name,
        "lost": report.metric.lost(before, after),
        "files": {line.file: line.standing for line in report.files},
        "ships": {one.runtime: one.file for one in report.shipping},
        **row,
    }


if __name__ == "__main__":
    main()
