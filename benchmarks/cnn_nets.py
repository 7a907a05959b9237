"""The nets that channel pruning methods are compared on: CIFAR ResNets, and MobileNetV2 moved to CIFAR-10."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import ROOT, Lines
from torch import nn

from edgeprune.data.open import open_data
from edgeprune.models.checkpoint import save_state
from edgeprune.models.load import load, load_from
from edgeprune.recipe import Recipe, TuneSection
from edgeprune.recipe_file import parse_recipe
from edgeprune.training.loop import tune

MOBILENETS: dict[str, dict[str, Any]] = {
    "mobilenetv2": {"pad_type": "same", "bn_eps": 1e-3},  # of the Keras weights
    "mobilenetv2_symmetric": {"bn_eps": 1e-3},  # moved with PyTorch's padding, which sparse inference takes
}
NETS = ("resnet20", "resnet32", "resnet56", *MOBILENETS)
TRANSFER = TuneSection(epochs=4, precision="bf16", lr=0.03, distillation=0.0)
SIDE = 96
LR = dict.fromkeys(MOBILENETS, 0.02)  # of re-training, for all methods; the others were trained for 200 epochs


def recipe_of(
    net: str, data: Path, npz: Path, target: str, epochs: int, *, prune: dict[str, Any] | None = None
) -> Recipe:
    """A net with its real weights, to a target; latency is measured here."""
    return parse_recipe(
        {
            "model": _mobilenetv2(net, data, npz) if net in MOBILENETS else cifar_resnet(data, net),
            "data": _cifar10(npz) | ({"crop_pct": 1.0} if net in MOBILENETS else {}),
            "device": {"protocol": "standard", "wait_minutes": 60},
            "prune": {"target": target, **(prune or {})},
            "tune": {"epochs": epochs, "precision": "bf16", "lr": LR.get(net, 0.05), "cuda_graphs": True},
        }
    )


def _cifar10(npz: Path) -> dict[str, Any]:
    return {"source": f"npz:{npz}", "validation_images": 1000, "calibration_images": 256}


def cifar_resnet(data: Path, net: str) -> dict[str, Any]:
    return {
        "factory": f"{ROOT / 'examples' / 'cifar_resnet.py'}:{net}",
        "checkpoint": str((data / "weights" / f"cifar10_{net}_akamaster.safetensors").resolve()),
        "input_size": [3, 32, 32],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


def _mobilenetv2(net: str, data: Path, npz: Path) -> dict[str, Any]:
    """Its ImageNet weights, trained on for `TRANSFER` with a new classifier, at 96 pixels; trained once."""
    file = npz.with_name(f"{net}-{npz.stem}-{SIDE}.safetensors")
    section = {
        "name": "mobilenetv2_100",
        "arguments": MOBILENETS[net],
        "checkpoint": str(file),
        "num_classes": 10,
        "input_size": [3, SIDE, SIDE],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    if not file.exists():
        _transfer(section, data / "weights" / "mobilenetv2_100_keras_in1k.safetensors", npz, file)
    return section


def _transfer(section: dict[str, Any], weights: Path, npz: Path, file: Path) -> None:
    recipe = parse_recipe({"model": {**section, "checkpoint": None}, "data": _cifar10(npz) | {"crop_pct": 1.0}})
    module: Any = load("timm:mobilenetv2_100", arguments=section["arguments"], checkpoint=weights.resolve()).module
    module.reset_classifier(10)
    nn.init.zeros_(module.classifier.weight)
    splits = open_data(recipe.data, load_from(recipe.model).spec, seed=recipe.seed)
    print(f"moving {file.stem} to CIFAR-10, {TRANSFER.epochs} epochs", flush=True)
    moved = tune(
        module,
        None,
        splits.train,
        splits.validation,
        TRANSFER,
        seed=recipe.seed,
        snapshots=file.with_suffix(".snapshots"),
        progress=Lines(),
    )
    print(f"validation {[record.validation for record in moved.history]}", flush=True)
    save_state(file, moved.module)
