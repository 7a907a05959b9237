"""Small structures and a small net that several tests prune."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from edgeprune.graph.operations import OpSignature
from edgeprune.latency.cost import CostModel
from edgeprune.search.problem import Judge, OnStep, Problem
from edgeprune.space.decisions import Limits, Space
from edgeprune.space.find import find_structure
from edgeprune.space.ranking import Ranking
from edgeprune.space.subnet import Subnet
from edgeprune.space.units import Layer, Structure, UnitGroup, Width


def group(name: str, size: int, span: int = 1) -> UnitGroup:
    return UnitGroup(id=name, size=size, produced=(), consumed=(), span=span)


def chain(widths: Mapping[str, int], pixels: int = 8) -> Structure:
    """A chain of 1x1 convolutions: 3 channels in, one group between any two, 10 out."""
    sides = [Width(3), *(Width(0, (((name,), 1),)) for name in widths), Width(10)]
    layers = []
    for number, (left, right) in enumerate(itertools.pairwise(sides)):
        operation = OpSignature("conv2d", left.at(widths), right.at(widths), height=pixels, width=pixels)
        layers.append(Layer(f"conv{number}", operation, left, right))
    return Structure(tuple(group(name, size) for name, size in widths.items()), tuple(layers), ())


def problem(
    structure: Structure,
    ranking: Ranking,
    costs: CostModel,
    judge: Judge,
    limits: Limits,
    *,
    on_step: OnStep | None = None,
) -> Problem:
    return Problem(Space(structure, limits), ranking, costs, judge, on_step)


def scores_of(structure: Structure, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {g.id: generator.exponential(size=g.size) for g in structure.groups}


class Additive:
    """Judges a model by the sum of the scores that are gone: what is lost together is the sum of its parts."""

    def __init__(self, scores: Mapping[str, np.ndarray], branches: Mapping[str, float] | None = None) -> None:
        self.scores, self.branches, self.asked = scores, branches or {}, 0

    def __call__(self, subnet: Subnet) -> float:
        self.asked += 1
        units = sum(float(self.scores[name][list(units)].sum()) for name, units in subnet.units.items())
        return units + sum(self.branches[name] for name in subnet.dropped)


class Net(nn.Module):
    """A convolution that one norm follows, a depthwise one, and a residual stream that two layers make."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.deep, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.conv2, self.norm3 = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.conv3 = nn.Conv2d(6, 6, 3, padding=1)
        self.linear = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm2(self.deep(self.norm1(self.conv1(x)).relu())).relu()
        x = self.norm3(self.conv2(x))
        x = x + self.conv3(x).relu()
        return self.linear(x.mean((2, 3)))


def net(seed: int = 0) -> tuple[Net, Structure]:
    torch.manual_seed(seed)
    made = Net()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 1.0)
    return made, find_structure(made, torch.randn(2, 3, 8, 8))
