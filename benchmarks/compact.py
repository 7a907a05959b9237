"""The study of compact ConvNets (arXiv 2301.04502) on a net with squeeze-excitation that is trained here, on CIFAR-10.

    python benchmarks/compact.py --data ../shared/data --cache .cache/bench

timm's mobilenetv3_small_100 (`--net fbnetv3_b` is the study's own family, for a GPU) at 64 pixels, from random weights,
for `--epochs`; then what each type of layer bears, every squeeze-excitation removed for its mean, and single weights of
all layers at zero by one threshold (global) or one share of each layer (uniform). What was changed is trained for
`--after` epochs with distillation from the net itself, which is trained on for as long beside it.
Accuracy is top-1 on the 10,000 test images; the types of layers are asked on validation images. Every part resumes.
Writes benchmarks/results/compact.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from common import ROOT, Lines, cifar10_npz, keep_row, write_result
from torch import Tensor, nn

import edgeprune
from edgeprune.data.open import open_data
from edgeprune.data.split import Splits
from edgeprune.models.checkpoint import save_state
from edgeprune.models.load import load_from
from edgeprune.models.spec import Model
from edgeprune.recipe import Recipe, TuneSection
from edgeprune.recipe_file import parse_recipe
from edgeprune.space.branches import remove_branches
from edgeprune.space.find import find_structure
from edgeprune.space.gates import set_gate_constants
from edgeprune.space.weight_masks import Scope, apply_masks, magnitude_masks
from edgeprune.training.accuracy import recalibrate_batchnorm, top1
from edgeprune.training.loop import tune

SIDE = 64
FROM_SCRATCH = TuneSection(precision="bf16", lr=0.1, distillation=0.0)
AFTER = TuneSection(precision="bf16", lr=0.02, distillation=0.7)
ZEROS = (0.5, 0.7, 0.9)
SCOPES: tuple[Scope, ...] = ("global", "uniform")
MEAN_IMAGES, ASKED = 512, 1000


@dataclass(frozen=True)
class Study:
    """A trained net, its data, and where the study's rows lie."""

    recipe: Recipe
    model: Model
    splits: Splits
    after: int
    folder: Path

    def row(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A row by its name, made once."""
        file = self.folder / f"{name}.json"
        if not file.exists():
            keep_row(file, make())
        row: dict[str, Any] = json.loads(file.read_text())
        print(name, row, flush=True)
        return row

    def trained_on(self, name: str, module: nn.Module, masks: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """Top-1 of a changed net, batch norms adapted, and after training."""
        adapted = recalibrate_batchnorm(module, self.splits.calibration, len(self.splits.calibration))
        tuned = tune(
            module,
            self.model.module,
            self.splits.train,
            self.splits.validation.take(0),
            AFTER.model_copy(update={"epochs": self.after}),
            seed=self.recipe.seed,
            snapshots=self.folder / f"{name}.snapshots",
            masks=masks,
            progress=Lines(),
        ).module
        return {"changed": top1(adapted, self.splits.test), "trained": top1(tuned, self.splits.test)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--net", default="mobilenetv3_small_100")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--after", type=int, default=2)
    parser.add_argument("--zeros", nargs="*", type=float, default=ZEROS, help="shares of weights; none: no zeros")
    parser.add_argument("--images", type=int, default=50_000, help="to train on, for a quick look")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    npz = cifar10_npz(arguments.data, cache)
    study = trained(arguments, npz, cache / "compact" / f"{arguments.net}-{arguments.epochs}-{arguments.images}")
    sensitivity = study.row("sensitivity", lambda: types_of_layers(study))
    study = replace(study, folder=study.folder / f"after-{arguments.after}")
    rows = {"as it is": study.row("as it is", lambda: study.trained_on("as it is", study.model.module))}
    rows["without gates"] = study.row("without gates", lambda: without_gates(study))
    for scope, share in itertools.product(SCOPES, arguments.zeros):
        name = f"{scope}, {share:.0%} zeros"
        rows[name] = study.row(name, partial(with_zeros, study, name, scope, share))
    names = ("net", "epochs", "images", "after")
    settings = {**{name: getattr(arguments, name) for name in names}, "side": SIDE}
    print(f"wrote {write_result('compact', {**settings, 'sensitivity': sensitivity, 'rows': rows})}")


def trained(arguments: argparse.Namespace, npz: Path, folder: Path) -> Study:
    """The net, trained once."""
    file = folder / "model.safetensors"
    model = {
        "name": arguments.net,
        "num_classes": 10,
        "input_size": [3, SIDE, SIDE],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    data = {"source": f"npz:{npz}", "validation_images": ASKED, "calibration_images": 512, "crop_pct": 1.0}
    recipe = parse_recipe({"model": model, "data": data})
    base = load_from(recipe.model)
    splits = open_data(recipe.data, base.spec, seed=recipe.seed)
    train = splits.train.take(arguments.images)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        settings = FROM_SCRATCH.model_copy(update={"epochs": arguments.epochs})
        found = tune(
            base.module,
            None,
            train,
            splits.validation,
            settings,
            seed=recipe.seed,
            snapshots=folder / "snapshots",
            progress=Lines(),
        )
        print(f"validation {[record.validation for record in found.history]}", flush=True)
        save_state(file, found.module)
    recipe = parse_recipe({"model": {**model, "checkpoint": str(file)}, "data": data})
    return Study(recipe, load_from(recipe.model), replace(splits, train=train), arguments.after, folder)


def types_of_layers(study: Study) -> dict[str, Any]:
    return edgeprune.sensitivity(study.recipe, images=ASKED).model_dump(mode="json")


def without_gates(study: Study) -> dict[str, Any]:
    """Every squeeze-excitation removed for its mean, trained on."""
    whole = study.model.module
    structure = find_structure(whole, study.model.example_input())
    gates = [branch.id for branch in structure.branches if branch.gate]
    pruned = remove_branches(whole, structure, gates)
    images = study.splits.train.take(MEAN_IMAGES).batches(128)
    set_gate_constants(pruned, whole, structure, gates, (batch for batch, _ in images))
    return {"gates": len(gates), **study.trained_on("without gates", pruned)}


def with_zeros(study: Study, name: str, scope: Scope, share: float) -> dict[str, Any]:
    module = load_from(study.recipe.model).module
    masks = magnitude_masks(module, study.model.example_input(), zeros=share, scope=scope, which="all")
    apply_masks(module, masks)
    return study.trained_on(name, module, masks)


if __name__ == "__main__":
    main()
