"""The loop to a measured latency: which widths its corrections may take. The files are real, the latencies made up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import edgeprune
from edgeprune.latency.bench import Bench
from edgeprune.latency.cost import MacsCost
from edgeprune.latency.measurement import Ratio
from edgeprune.methods.magnitude import score_magnitude
from edgeprune.recipe import Target
from edgeprune.search.channels import prune_to_latency
from edgeprune.search.measured import Goal
from edgeprune.search.path import PathAllocator
from edgeprune.search.problem import Problem, Shares
from edgeprune.search.pruned import Pruned
from edgeprune.space.decisions import Limits, Space
from edgeprune.space.find import find_structure
from edgeprune.space.ranking import ByScore


class Slower(Bench):
    """Takes every file for three tenths slower than its layers are counted to be: no prediction is right."""

    def ratio(self, file: Path, original: Path) -> Ratio:
        share = min(0.99, 1.3 * file.stat().st_size / original.stat().st_size)
        return Ratio.model_construct(ratio=share, low=share, high=share, quality="stable", evidence="")


def pruned(bench: Bench, folder: Path, *, halves: bool) -> Pruned:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(64, 10))
    model = edgeprune.load("mobilenetv2_050", num_classes=10, input_size=(3, 16, 16)).with_module(net.eval())
    structure = find_structure(model.module, model.example_input())
    ranking = ByScore(score_magnitude(model.module, structure))
    space = Space(structure, Limits(bench.granularity, 8))
    problem = Problem(space, ranking, MacsCost(), lambda subnet: float(sum(map(len, subnet.units.values()))))
    original = folder / "original.tflite"
    bench.exporter.write(model, original)
    slower = Slower(**{field.name: getattr(bench, field.name) for field in dataclasses.fields(bench)})
    goal = Goal(Target.parse("0.7x"), original, 1.0, 0.001, 4, slower)
    return prune_to_latency(
        model,
        PathAllocator(problem),
        Shares(problem.whole_cost, 0.7),
        goal,
        folder,
        granularity=bench.granularity,
        halves=halves,
        known={},
        keep=lambda _: None,
    )


@pytest.mark.parametrize("asked", [False, True])
def test_widths_finer_than_asked_for_are_not_taken(bench: Bench, tmp_path: Path, asked: bool) -> None:
    """Those of the profile are the step to begin with, and are halved where no choice in between is left."""
    bench = dataclasses.replace(bench, granularity=16)
    found = pruned(bench, tmp_path, halves=not asked)
    assert found.best is not None
    assert (len(found.attempts) == 1) == asked
    assert all(width % 16 == 0 for width in found.chosen.subnet.kept(found.structure).values()) == asked
