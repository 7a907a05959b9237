"""What least-squares reconstruction is worth: one and the same cut of ResNet-20, with and without it, trained alike.

    python benchmarks/reconstruct.py --data ../shared/data --cache .cache/bench

ResNet-20 with its author's weights is pruned to 0.5x of its latency on this machine once (Taylor, nothing
reconstructed). Top-1 on the 10,000 CIFAR-10 test images of the model as cut, with batch norms adapted to the images
alone, and reconstructed; then the cut and the reconstructed one are trained at several rates by the loop of
cnn_methods.py. One process a core, one thread each. Writes benchmarks/results/reconstruct.json; it resumes.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cnn_nets import recipe_of
from common import ROOT, Lines, cifar10_npz, keep_row, workers, write_result
from torch import nn
from torch_pruning_peer import RememberedTeacher

from edgeprune.methods.registry import judge_of
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe import PruneSection
from edgeprune.runs import lock, open_run
from edgeprune.stages.context import Context
from edgeprune.stages.probe import structure_of
from edgeprune.stages.stage import STAGES
from edgeprune.training.accuracy import top1
from edgeprune.training.loop import tune
from edgeprune.training.reconstruct import adapt_norms, reconstruct

NET, RATES, BATCH = "resnet20", (0.05, 0.015), 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--images", type=int, nargs="+", default=[256, 512, 1024], help="that layers are fitted on")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    root = cache / "reconstruct"
    recipe = recipe_of(
        NET, arguments.data, cifar10_npz(arguments.data, cache), "0.5x", arguments.epochs, prune={"reconstruct": 0}
    )
    with lock(root / "run"):
        context = Context(prepare_run(recipe, root / "run", resume=True), Lines())
        for stage in STAGES[: STAGES.index("tune")]:
            do_stage(context, stage)
    figures: dict[str, Any] = {"images": {str(n): of_images(context, n) for n in arguments.images}}
    todo = list(itertools.product(RATES, (0, PruneSection().reconstruct)))
    with workers() as pool:
        figures["trained"] = list(pool.map(partial(trained, root), todo))
    print(f"wrote {write_result('reconstruct', {'net': NET, 'target': '0.5x', **figures})}")


def of_images(context: Context, images: int) -> dict[str, float]:
    """Top-1 on test images and the judged loss: as cut, with norms adapted alone, reconstructed."""
    recipe, train = context.recipe, context.splits.train
    adapted = copy.deepcopy(context.model("prune").module)
    adapt_norms(adapted, seen(context, images))
    modules = {"cut": context.model("prune").module, "adapted": adapted, "reconstructed": fitted(context, images)}
    judge = judge_of(context.model("load"), structure_of(context), recipe.prune, recipe.tune, train, seed=recipe.seed)
    row = {f"{name}_top1": top1(module, context.splits.test) for name, module in modules.items()}
    row |= {f"{name}_loss": judge.of(copy.deepcopy(module), adapted=False) for name, module in modules.items()}
    print(images, row, flush=True)
    return row


def fitted(context: Context, images: int) -> nn.Module:
    """The cut model after reconstruction."""
    module, structure = copy.deepcopy(context.model("prune").module), structure_of(context)
    removed, whole = context.plan.subnet.units, context.model("load").module
    reconstruct(module, whole, structure, removed, seen(context, images), seed=context.recipe.seed)
    return module


def seen(context: Context, images: int) -> torch.Tensor:
    """The training images that the prune stage would take."""
    recipe = context.recipe
    batches = context.splits.train.batches(BATCH, seed=recipe.seed + 1, augment=recipe.tune.augment)
    return torch.cat([batch for batch, _ in itertools.islice(batches, -(-images // BATCH))])[:images]


def trained(root: Path, setting: tuple[float, int]) -> dict[str, Any]:
    """One training: at a rate, from a model fitted on so many images (0: as cut)."""
    rate, images = setting
    done = root / f"rate-{rate}-images-{images}.json"
    if not done.exists():
        context = Context(open_run(root / "run"), Silent())
        recipe = context.recipe
        module = fitted(context, images) if images else context.model("prune").module
        teacher = RememberedTeacher(context.model("load").module, root / "teacher.safetensors")
        result = tune(
            module,
            teacher,
            context.splits.train,
            context.splits.validation,
            recipe.tune.model_copy(update={"lr": rate}),
            seed=recipe.seed,
            snapshots=done.with_suffix(".snapshots"),
        )
        teacher.save()
        row = {"rate": rate, "images": images, "epochs": recipe.tune.epochs}
        row |= {"validation": [epoch.validation for epoch in result.history]}
        keep_row(done, {**row, "top1": top1(result.module, context.splits.test)})
    row = json.loads(done.read_text())
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
