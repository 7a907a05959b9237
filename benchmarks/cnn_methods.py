"""Accuracy against measured latency for every channel pruning method, ours and Torch-Pruning's, on CIFAR-10.

    python benchmarks/cnn_methods.py --data ../shared/data --cache .cache/bench --budget cpu

All start from the same real weights, are pruned to the same measured LiteRT latency on this machine (in turns with the
original, within 3 %), and are trained for the same epochs of the same loop: data order, augmentation, learning rate
cycle, distillation from the unpruned net. Methods that prune while they train have their epochs of pruning among these.
A method that cannot reach the latency is listed as that: on this machine a kernel of 8 channels takes as long as one of
16, and ResNet-20 without any branch removed ends at 0.515x.
Budgets: `cpu` is ResNet-20 to 0.5x with 5 epochs, then ResNet-56 for the best of ours and the best peer; `gpu` is
ResNet-20 and -56 to 0.7x, 0.5x and 0.35x with 30 epochs. MobileNetV2 with its ImageNet weights, moved to CIFAR-10 at
96 pixels, is `--nets mobilenetv2 --epochs 3` (about ten minutes an epoch).
Every method resumes; `--nets`, `--shares` and `--only` do some of them. Methods run side by side (`--jobs`), one a core
and each with one thread: a small net trains slower with two.
`--choose` stops before the training. The cache can then go to a machine with a GPU (data and repository at the same
paths), where the same command without it trains what was chosen and measured here.
Accuracy is top-1 on the 10,000 test images. Writes benchmarks/results/cnn_methods.json and the pictures
docs/methods/cnn_methods.svg and, of the gpu budget, cnn_grid.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from itertools import repeat
from pathlib import Path
from typing import Any

from cnn_grid_picture import draw_grid
from cnn_nets import NETS, recipe_of
from cnn_picture import draw
from common import ROOT, Lines, cifar10_npz, keep_row, workers, write_result
from torch import nn
from torch_pruning_peer import PEERS, Peer, RememberedTeacher

from edgeprune.data.open import open_data
from edgeprune.data.split import Splits
from edgeprune.errors import TargetError
from edgeprune.models.load import load_from
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.recipe import Recipe
from edgeprune.runs import lock
from edgeprune.stages.context import Context
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.stages.stage import STAGES
from edgeprune.training.accuracy import top1

PICTURES = ROOT / "docs" / "methods"
TURNS = 0.6  # of the epochs, for methods that prune while they train
OURS: dict[str, dict[str, Any]] = {
    "taylor": {},
    "taylor, no branches": {"branches": False},
    "magnitude": {"method": "magnitude"},
    "reprune": {"method": "reprune"},
    "halp": {"allocator": "knapsack"},
    "netadapt": {"method": "magnitude", "allocator": "netadapt"},
    "magnitude, global": {"method": "magnitude", "allocator": "global"},
    "magnitude, uniform": {"method": "magnitude", "allocator": "uniform"},
    "reprune, scales": {"method": "reprune", "allocator": "scales"},
    "taylor, in turns": {"epochs": TURNS, "interval": 1},
    "reprune, in turns": {"method": "reprune", "epochs": TURNS, "interval": 1, "regrow": 0.3},
    "auto": {"method": "auto", "auto_minutes": 10},
    "reprune, as published": {
        **{"method": "reprune", "allocator": "scales"},
        **{"epochs": TURNS, "interval": 1, "regrow": 0.3},
    },
}
BUDGETS = {"cpu": (("resnet20",), (0.5,), 5), "gpu": (("resnet20", "resnet56"), (0.7, 0.5, 0.35), 30)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--budget", choices=BUDGETS, default="cpu")
    parser.add_argument("--nets", nargs="*", choices=NETS, help="instead of the budget's")
    parser.add_argument("--shares", nargs="*", type=float, help="of the latency, instead of the budget's")
    parser.add_argument("--only", nargs="*", choices=(*OURS, *PEERS))
    parser.add_argument("--epochs", type=int, help="instead of the budget's")
    parser.add_argument("--choose", action="store_true", help="prune, and stop before the training")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="methods at once, each with one thread")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    npz = cifar10_npz(arguments.data, cache)
    nets, shares, epochs = BUDGETS[arguments.budget]
    shares = arguments.shares or shares
    chosen = arguments.only or (*OURS, *PEERS)
    started = time.time()
    with workers(arguments.jobs) as pool:

        def of_net(net: str, names: tuple[str, ...]) -> None:
            recipe_of(net, arguments.data, npz, "0.5x", 0)  # its weights, where they have to be trained first
            todo = [(net, share, arguments.epochs or epochs, name) for share in shares for name in names]
            work = choice if arguments.choose else of_method
            list(pool.map(work, todo, repeat(arguments.data), repeat(npz), repeat(cache)))

        for net in arguments.nets or nets:
            of_net(net, chosen)
        if arguments.budget == "cpu" and not (arguments.nets or arguments.only or arguments.shares):
            of_net("resnet56", best([row for row in rows_of(cache, "resnet20") if row["share"] in shares]))
    print(f"{(time.time() - started) / 60:.0f} minutes")
    if arguments.choose:
        return
    rows = {net: rows_of(cache, net) for net in NETS}
    gpu_nets, _, grid = BUDGETS["gpu"]
    draw({net: [row for row in of if row["epochs"] != grid] for net, of in rows.items()}, PICTURES / "cnn_methods.svg")
    unpruned = {net: original(net, arguments.data, npz, cache) for net in gpu_nets}
    draw_grid({net: [row for row in rows[net] if row["epochs"] == grid] for net in gpu_nets}, unpruned, PICTURES)
    print(write_result("cnn_methods", {"unpruned": unpruned, "nets": rows}), file=sys.stderr)


def choice(method: tuple[str, float, int, str], data: Path, npz: Path, cache: Path) -> None:
    """One method up to its pruned model, as (net, share, epochs, name)."""
    net, share, epochs, name = method
    root = cache / "cnn_methods" / f"{net}-{share}x-{epochs}"
    print(f"== {net} {share}x {name} {time.strftime('%H:%M:%S')}", flush=True)
    if name in OURS:
        try:
            pruned(recipe_for(name, net, data, npz, f"{share}x", epochs), folder_of(root, name))
        except TargetError as error:
            print(f"   {net} {share}x {name}: {error}", flush=True)
    else:
        Peer(name, recipe_of(net, data, npz, f"{share}x", epochs), root / name).pruned(share)


def of_method(method: tuple[str, float, int, str], data: Path, npz: Path, cache: Path) -> None:
    """Run one method, as (net, share, epochs, name), unless it is done; its row is a JSON file."""
    net, share, epochs, name = method
    root = cache / "cnn_methods" / f"{net}-{share}x-{epochs}"
    folder = folder_of(root, name)
    done = folder.with_suffix(".json")
    if done.exists():
        return
    print(f"== {net} {share}x {name} {time.strftime('%H:%M:%S')}", flush=True)
    started = time.time()
    answers = root / "teacher.safetensors"
    if name in OURS:
        try:
            row = ours(recipe_for(name, net, data, npz, f"{share}x", epochs), folder, answers)
        except TargetError as error:
            row = {"unreachable": str(error)}
    else:
        row = theirs(recipe_of(net, data, npz, f"{share}x", epochs), name, root, share)
    row |= {"method": name, "net": net, "share": share, "epochs": epochs, "seconds": time.time() - started}
    keep_row(done, row)
    said = "unreachable" if "unreachable" in row else f"{row['top1']:.4f} at {row['measured_share']:.3f}x"
    print(f"   {net} {share}x {name}: {said}, {row['seconds']:.0f} s", flush=True)


def recipe_for(name: str, net: str, data: Path, npz: Path, target: str, epochs: int) -> Recipe:
    """The recipe of one of our methods; the epochs of one that prunes while it trains are among the epochs."""
    settings = dict(OURS[name])
    turns = round(settings.get("epochs", 0) * epochs)
    return recipe_of(net, data, npz, target, epochs - turns, prune={**settings, "epochs": turns})


def folder_of(root: Path, method: str) -> Path:
    return root / method.replace(", ", "-").replace(" ", "-")


def ours(recipe: Recipe, folder: Path, answers: Path) -> dict[str, Any]:
    """Up to the tuned model, as `edgeprune run` does it; what the teacher answered before is not asked again."""
    context = pruned(recipe, folder)
    with lock(folder):
        original = context.model("load")
        teacher = RememberedTeacher(original.module, answers)
        context.keep_model("load", original.with_module(teacher))
        do_stage(context, "tune")
        teacher.save()
        record = PruneRecord.model_validate_json(context.file("prune", "prune.json").read_bytes())
        ratio = record.ratio
        measured: dict[str, Any] = {}  # a target that is counted is not measured
        if ratio is not None:
            measured = {"measured_share": ratio.ratio, "interval": [ratio.low, ratio.high], "quality": ratio.quality}
        return {
            **measured,
            "within_tolerance": record.within_tolerance,
            "attempts": len(record.attempts),
            "macs": record.macs_after,
            "branches_removed": len(record.branches),
            **accuracies(context.model("tune").module, context.splits),
        }


def pruned(recipe: Recipe, folder: Path) -> Context:
    """The run, done up to its pruned model."""
    with lock(folder):
        context = Context(prepare_run(recipe, folder, resume=True), Lines())
        for stage in STAGES[: STAGES.index("tune")]:
            do_stage(context, stage)
    return context


def theirs(recipe: Recipe, name: str, root: Path, share: float) -> dict[str, Any]:
    found = Peer(name, recipe, root / name).run(share)
    kept = {key: found[key] for key in ("measured_share", "interval", "quality", "macs", "ratio")}
    return {**kept, "top1": found["accuracy"]["tuned"], "validation": found["accuracy"]["validation"]}


def original(net: str, data: Path, npz: Path, cache: Path) -> float:
    """Top-1 of the net as its author trained it."""
    file = cache / "cnn_methods" / f"{net}.json"
    if not file.exists():
        recipe = recipe_of(net, data, npz, "0.5x", 0)
        base = load_from(recipe.model)
        keep_row(file, {"top1": top1(base.module, open_data(recipe.data, base.spec, seed=recipe.seed).test)})
    return float(json.loads(file.read_text())["top1"])


def accuracies(module: nn.Module, splits: Splits) -> dict[str, float]:
    return {"top1": top1(module, splits.test), "validation": top1(module, splits.validation)}


def rows_of(cache: Path, net: str) -> list[dict[str, Any]]:
    files = sorted((cache / "cnn_methods").glob(f"{net}-*/*.json"))
    return [row for file in files if "method" in (row := json.loads(file.read_text()))]


def best(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """The best of ours and the best peer: by validation images, not by those that are reported."""
    reached = [row for row in rows if "unreachable" not in row]
    ranked = [row["method"] for row in sorted(reached, key=lambda row: -row["validation"])]
    return (*[name for name in ranked if name in OURS][:1], *[name for name in ranked if name in PEERS][:1])


if __name__ == "__main__":
    main()
