"""The loop to a measured latency: which widths its corrections may take. The files are real, the latencies made up."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import edgeprune
from edgeprune.latency.baseline import Baseline
from edgeprune.latency.cost import MacsCost, total
from edgeprune.latency.measurement import Ratio
from edgeprune.latency.probing import Probing
from edgeprune.methods.magnitude import score_magnitude
from edgeprune.methods.registry import Candidate
from edgeprune.recipe import PruneSection
from edgeprune.search.measured import LatencyLoop, Pruned
from edgeprune.space.find import find_structure
from edgeprune.space.ranking import ByScore


class Slower(Probing):
    """Takes every file for three tenths slower than its layers are counted to be: no prediction is right."""

    def ratio(self, file: Path, original: Path) -> Ratio:
        share = min(0.99, 1.3 * file.stat().st_size / original.stat().st_size)
        return Ratio.model_construct(ratio=share, low=share, high=share, quality="stable", evidence="")


@dataclass(frozen=True)
class Counted:
    """Predicts latency from multiply-accumulates."""

    costs: MacsCost
    unpruned_s: float

    def whole(self, cost: float) -> float:
        return cost

    def budget(self, seconds: float) -> float:
        return seconds


def pruned(probing: Probing, folder: Path, **settings: Any) -> Pruned:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(64, 10))
    model = edgeprune.load("mobilenetv2_050", num_classes=10, input_size=(3, 16, 16)).with_module(net.eval())
    structure = find_structure(model.module, model.example_input())
    ranking = ByScore(score_magnitude(model.module, structure))
    section = PruneSection(target="0.7x", tolerance=0.001, corrections=4, **settings)
    candidate = Candidate(
        model, structure, ranking, lambda gone, _: float(sum(map(len, gone.values()))), section, probing.granularity
    )
    original = folder / "original.tflite"
    probing.exporter.write(model, original)
    baseline: Any = Baseline(structure, original, SimpleNamespace(median_s=1.0))  # type: ignore[arg-type]
    predictor: Any = Counted(MacsCost(), total(structure.layers, structure.sizes, MacsCost()))
    slower = Slower(**{field.name: getattr(probing, field.name) for field in dataclasses.fields(probing)})
    return LatencyLoop(candidate, baseline, predictor, slower, folder, on_progress=lambda *_: None).run()


@pytest.mark.parametrize("asked", [None, 16])
def test_widths_finer_than_asked_for_are_not_taken(probing: Probing, tmp_path: Path, asked: int | None) -> None:
    """Those of the profile are the step to begin with, and are halved where no choice in between is left."""
    probing = dataclasses.replace(probing, granularity=16)
    found = pruned(probing, tmp_path, granularity=asked)
    assert found.best is not None
    assert (len(found.attempts) == 1) == (asked is not None)
    assert all(width % 16 == 0 for width in found.choice.kept.values()) == (asked is not None)
