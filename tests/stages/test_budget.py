"""A share on the way: met, by the smallest model where a measured target leaves room, or told to be out of reach."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from facts import refused
from torch import nn

from edgeprune.errors import TargetError
from edgeprune.latency.cost import MacsCost
from edgeprune.methods.compact import Uniform
from edgeprune.methods.gradual import choice_at, smallest_at
from edgeprune.methods.magnitude import score_magnitude
from edgeprune.search.problem import Problem, Shares
from edgeprune.search.rules import RuleAllocator
from edgeprune.space.decisions import Limits, Space
from edgeprune.space.find import find_structure
from edgeprune.space.ranking import ByScore


def test_the_smallest_model_is_taken_within_the_tolerance_only() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
    structure = find_structure(net, torch.randn(1, 3, 8, 8))
    ranking = ByScore(score_magnitude(net, structure))
    problem = Problem(Space(structure, Limits(8, 8)), ranking, MacsCost(), lambda _: 0.0)
    allocator, whole = RuleAllocator(problem, Uniform(structure.sizes)), problem.whole_cost
    least = allocator.smallest()
    share = least.cost / whole
    goal = share / 1.02

    def scene(tolerance: float) -> Any:
        return SimpleNamespace(shares=Shares(whole, goal, tolerance=tolerance))

    smallest_at(scene(0.03), allocator, goal, 0.0)
    smallest_at(scene(0.01), allocator, goal, 0.02)
    assert choice_at(scene(0.03), allocator, goal) == least
    for tolerance in (0.0, 0.01):
        with refused(TargetError, f"{goal:.3g}x", f"{share:.3g}x"):
            choice_at(scene(tolerance), allocator, goal)
        with refused(TargetError, f"{goal:.3g}x"):
            smallest_at(scene(tolerance), allocator, goal, 0.0 if tolerance else 0.02)  # what is counted has none
    assert choice_at(scene(0.0), allocator, 0.9).cost <= 0.9 * whole
