"""Torch-Pruning on the compared nets: pruned to a measured latency and tuned by our loop, for side-by-side figures."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import Lines, keep_row, write_merged
from safetensors.torch import load_file, save_file
from torch import nn

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.data.open import open_data
from edgeprune.data.split import Splits
from edgeprune.devices.discovery import open_device
from edgeprune.latency.cost import MacsCost, total
from edgeprune.latency.pairs import measure_ratio
from edgeprune.models.checkpoint import save_state, to_bytes
from edgeprune.models.load import load_from
from edgeprune.models.spec import Model
from edgeprune.recipe import Recipe
from edgeprune.space.find import find_structure
from edgeprune.training.accuracy import top1
from edgeprune.training.loop import tune

STEPS = 5  # of Torch-Pruning's schedule
SCORING_BATCHES = 8
RATIOS = (0.1, 0.9)  # between which the one that meets the latency is searched
TRIES = 8
PEERS = ("tp_l1", "tp_taylor", "tp_bn_scale")


class Peer:
    """Torch-Pruning, global, its ratio searched until the latency is met."""

    def __init__(self, name: str, recipe: Recipe, folder: Path) -> None:
        self.name, self.recipe, self.folder = name, recipe, folder
        self.base = load_from(recipe.model)
        self.splits = open_data(recipe.data, self.base.spec, seed=recipe.seed)
        self.device = open_device("local")
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, share: float) -> dict[str, Any]:
        pruned = self.pruned(share)
        before = top1(pruned, self.splits.test)
        teacher = RememberedTeacher(self.base.module, self.folder.parent / "teacher.safetensors")
        tuned = tune(
            pruned,
            teacher,
            self.splits.train,
            self.splits.validation,
            self.recipe.tune,
            seed=self.recipe.seed,
            snapshots=self.folder / "snapshots",
            progress=Lines(),
        ).module
        teacher.save()
        save_state(self.folder / "tuned.safetensors", tuned)
        validation = top1(tuned, self.splits.validation)
        layers = find_structure(tuned, self.base.example_input())
        return {
            "accuracy": {"pruned": before, "tuned": top1(tuned, self.splits.test), "validation": validation},
            "macs": total(layers.layers, layers.sizes, MacsCost()),
            "widths": widths(tuned),
            **json.loads((self.folder / "search.json").read_text()),
        }

    def pruned(self, share: float) -> nn.Module:
        """The peer's model nearest the latency, by bisection over its pruning ratio; kept for a resumed run."""
        file = self.folder / "pruned.safetensors"
        if not file.exists():
            low, high, tried = *RATIOS, []
            with MeasuringExporter("litert") as exporter:
                original = write_merged(exporter, self.base, self.folder / "original.tflite")
                for number in range(TRIES):
                    ratio = (low + high) / 2
                    module = torch_pruning(self.name, self.base, ratio, self.splits)
                    path = write_merged(exporter, self.base.with_module(module), self.folder / f"try-{number}.tflite")
                    measured = measure_ratio(
                        self.device, path, original, runtime="litert", protocol=self.recipe.device.protocol
                    )
                    print(f"{self.name}: ratio {ratio:.3f} -> {measured.ratio:.3f}x ({measured.quality})", flush=True)
                    tried.append((abs(measured.ratio / share - 1), ratio, measured, module))
                    low, high = (ratio, high) if measured.ratio > share else (low, ratio)
                    if tried[-1][0] <= self.recipe.prune.tolerance:
                        break
            _, ratio, measured, module = min(tried, key=lambda t: t[0])
            found = {"ratio": ratio, "measured_share": measured.ratio, "interval": [measured.low, measured.high]}
            keep_row(self.folder / "search.json", {**found, "quality": measured.quality})
            save_state(file, module)
        return resized(self.base, load_file(file))


class RememberedTeacher(nn.Module):
    """The unpruned net's answers, kept by its weights and the batch: all peers see the same batches, so only the first
    one has to ask."""

    def __init__(self, module: nn.Module, file: Path) -> None:
        super().__init__()
        self.module, self.file = copy.deepcopy(module).eval(), file
        self.weights = hashlib.sha256(to_bytes(module.state_dict())).digest()
        self.answers = load_file(file) if file.exists() else {}

    def __deepcopy__(self, memo: dict[int, Any]) -> RememberedTeacher:
        return self  # the loop trains with copies; the answers are shared

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy().tobytes()
        key = hashlib.sha256(self.weights + pixels).hexdigest()
        if key not in self.answers:
            self.answers[key] = self.module(images).float().cpu()
        return self.answers[key].to(images.device)

    def save(self) -> None:
        part = self.file.with_suffix(f".part{os.getpid()}")  # another method may save its own at this moment
        save_file(self.answers, part)
        part.replace(self.file)


def torch_pruning(name: str, base: Model, ratio: float, splits: Splits) -> nn.Module:
    """Torch-Pruning's MetaPruner, iterative; widths in multiples of 8, as our device profile has them.

    In one step it leaves a layer whole when the global threshold would take all of it (seen: a ratio of 0.875 prunes
    less than 0.5 does), so the ratio is reached in steps.
    """
    import torch_pruning as tp

    torch.manual_seed(0)
    module = copy.deepcopy(base.module).eval()
    importance = {
        "tp_l1": lambda: tp.importance.MagnitudeImportance(p=1),
        "tp_taylor": tp.importance.GroupTaylorImportance,
        "tp_bn_scale": tp.importance.BNScaleImportance,
    }[name]()
    pruner = tp.pruner.MetaPruner(
        module,
        base.example_input(),
        importance=importance,
        global_pruning=True,
        pruning_ratio=ratio,
        round_to=8,
        iterative_steps=STEPS,
        ignored_layers=left_whole(module),
    )
    for _ in range(STEPS):
        if name == "tp_taylor":
            for _, (images, labels) in zip(range(SCORING_BATCHES), splits.train.batches(128, seed=0), strict=False):
                F.cross_entropy(module(images), labels).backward()
        pruner.step()
        module.zero_grad()
    return module


def left_whole(module: Any) -> list[nn.Module]:
    """The classifier; in a CIFAR ResNet all but the blocks' inner channels, whose shortcuts pad by slicing."""
    if hasattr(module, "classifier"):
        return [module.classifier]
    blocks = [m for m in module.modules() if hasattr(m, "conv1") and hasattr(m, "conv2")]
    return [module.conv1, module.linear, *(block.conv2 for block in blocks)]


def widths(module: nn.Module) -> list[int]:
    return [m.conv1.out_channels for m in module.modules() if hasattr(m, "conv1") and hasattr(m, "conv2")]


def resized(base: Model, state: dict[str, torch.Tensor]) -> nn.Module:
    """The net with its blocks as wide as a state says."""
    module = copy.deepcopy(base.module)
    for name, part in module.named_modules():
        for key in ("weight", "bias", "running_mean", "running_var"):
            value = state.get(f"{name}.{key}" if name else key)
            if value is None:
                continue
            own = getattr(part, key)
            setattr(part, key, nn.Parameter(value) if isinstance(own, nn.Parameter) else value)
        if isinstance(part, nn.Conv2d):
            depthwise = part.groups > 1
            part.out_channels = part.weight.shape[0]
            part.in_channels = part.weight.shape[0] if depthwise else part.weight.shape[1]
            part.groups = part.weight.shape[0] if depthwise else 1
        if isinstance(part, nn.Linear):
            part.out_features, part.in_features = part.weight.shape
        if isinstance(part, nn.BatchNorm2d):
            part.num_features = len(part.weight)
    return module
