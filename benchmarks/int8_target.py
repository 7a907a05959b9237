"""Pruned to 0.5x of the latency of the int8 file, and what choosing for that file is worth.

    python benchmarks/int8_target.py --data ../shared/data --cache .cache/bench

ResNet-20 on CIFAR-10 and MobileNetV2 moved to it at 96 pixels (cnn_nets.py), to `prune.target_file = "tflite-int8"` on
this machine. Each net twice, as whole jobs: `int8` as the recipe says, and `fp32`, where the subnet is chosen by what
layers take in the *fp32* file (its own probes, its own table rows) while all that is measured stays int8, until the
int8 file takes the same latency. So both are equally fast, and differ in what goes: by the judged loss before
re-training, by accuracy after it, by the widths of the layers.

With --lab on the ARM64 machine of tests/lab under icount, on a processor with dot product (cortex-a76) and on one
without (cortex-a72); the machine proves the files with 200 images. What the int8 files get right is counted here, over
all test images. Everything resumes. Writes benchmarks/results/int8_target.json (or _lab.json).
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cnn_nets import recipe_of
from common import ROOT, cifar10_npz, fewer_images, keep_row, whole_job, write_result
from lab import lab
from lab_runs import accuracies, exported

import edgeprune
from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.latency.baseline import Baseline, fill_table, measure_original
from edgeprune.latency.bench import Bench
from edgeprune.latency.predictor import Predictor
from edgeprune.models.spec import Model
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe
from edgeprune.scratch import scratch_folder
from edgeprune.stages.context import Context
from edgeprune.stages.prune import prune_stage
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.stages.stage import PIPELINE, Pipeline

NETS = ("resnet20", "mobilenetv2")
CPUS = ("cortex-a76", "cortex-a72")  # with dot product, and without
FILE = "tflite-int8"
CHOSEN_FOR = ("int8", "fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--target", default="0.5x", help="of the int8 latency")
    parser.add_argument("--epochs", type=int, default=5, help="tune.epochs")
    parser.add_argument("--images", type=int, help="training images, the first of them (default: all)")
    parser.add_argument("--judging-images", type=int, default=256, help="prune.judging_images")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="tune.precision")
    parser.add_argument("--method", default="taylor", help="prune.method")
    parser.add_argument("--lab", action="store_true", help="on the ARM64 machine of tests/lab")
    arguments = parser.parse_args()
    root = (arguments.cache / "int8_target").resolve()
    npz = cifar10_npz(arguments.data, root)
    if arguments.images:
        npz = fewer_images(npz, arguments.images)
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")  # with a latency table of its own
    rows: list[dict[str, Any]] = []
    for cpu in CPUS if arguments.lab else ("local",):
        place = root / cpu
        with lab(cpu=cpu, keep=place) if arguments.lab else nullcontext() as machine:
            for net in arguments.nets:
                recipe = recipe_for(net, npz, arguments, machine.device.id if machine else "local")
                rows.append({"net": net, "device": cpu, **of_net(recipe, place / net)})
                print(json.dumps(rows[-1]["compared"], indent=1), flush=True)
    result = {
        "settings": {
            "target": arguments.target,
            "file": FILE,
            "method": arguments.method,
            "epochs": arguments.epochs,
            "training_images": arguments.images or "all",
            "judging_images": arguments.judging_images,
        },
        "rows": rows,
    }
    print(f"wrote {write_result('int8_target_lab' if arguments.lab else 'int8_target', result)}")


def recipe_for(net: str, npz: Path, arguments: argparse.Namespace, device: str) -> Recipe:
    prune = {
        "target_file": FILE,
        "judging_images": arguments.judging_images,
        "method": arguments.method,
    }
    given = recipe_of(net, arguments.data, npz, arguments.target, arguments.epochs, prune=prune)
    tree = given.model_dump(exclude_unset=True)
    tree["device"]["id"] = device
    tree["tune"]["precision"] = arguments.precision
    if arguments.lab:
        tree["verify"] = {"images": 200}
    return parse_recipe(tree | {"export": {"formats": ["tflite"]}}, where="benchmark")


def of_net(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Both jobs of a net, and how they differ."""
    found = {}
    for chosen_for in CHOSEN_FOR:
        done = folder / f"{chosen_for}.json"
        if not done.exists():
            pipeline = PIPELINE if chosen_for == "int8" else CHOSEN_FOR_FLOATS
            keep_row(done, of_job(recipe, folder / chosen_for, pipeline))
        found[chosen_for] = json.loads(done.read_text())
    int8, fp32 = found["int8"], found["fp32"]
    accuracies = {name: row["accuracy_here"] for name, row in found.items()}
    compared = {
        "int8_share": {name: row["int8_file"]["latency"]["value"] for name, row in found.items()},
        "judged_loss": {"int8": int8["judged_loss"], "fp32": fp32["judged_loss"]},
        "accuracy_of_the_int8_file": accuracies,
        "accuracy_gained": round(accuracies["int8"] - accuracies["fp32"], 4),
        "layers_of_other_widths": sum(width != fp32["widths"].get(name) for name, width in int8["widths"].items()),
    }
    return {"compared": compared, **found}


def of_job(recipe: Recipe, folder: Path, pipeline: Pipeline) -> dict[str, Any]:
    with patch_pipeline(pipeline):
        row = whole_job(recipe, folder)
    pruned = PruneRecord.model_validate_json((folder / "prune" / "prune.json").read_bytes())
    files = exported("run", folder / "export")
    return {
        **row,
        "accuracy_here": accuracies(recipe, {"int8": files["run int8"]})["int8"],
        "int8_file": row["checks"]["model_int8.tflite"],
        "judged_loss": pruned.loss,
        "widths": {layer.name: layer.width_after for layer in pruned.layers},
    }


def patch_pipeline(pipeline: Pipeline) -> Any:
    """`whole_job` with other stages."""
    run = edgeprune.run
    return patch.object(edgeprune, "run", lambda *given, **options: run(*given, **options, pipeline=pipeline))


def prune_by_floats(context: Context, folder: Path) -> dict[str, Any]:
    """The prune stage, whose choice rests on what the layers take in the fp32 file."""

    def of_floats(model: Model, _: Baseline, bench: Bench) -> Predictor:
        with MeasuringExporter(bench.runtime) as exporter, scratch_folder("floats") as scratch:
            there = replace(bench, exporter=exporter)
            unpruned = measure_original(model, scratch, there, keep=context.recipe.prune.keep)
            return fill_table(model, unpruned, there)

    with patch("edgeprune.stages.prune.fill_table", of_floats):
        return prune_stage(context, folder)


CHOSEN_FOR_FLOATS = Pipeline(
    tuple(replace(stage, does=prune_by_floats) if stage.name == "prune" else stage for stage in PIPELINE)
)


if __name__ == "__main__":
    main()
