"""A budget on the way: met, by the smallest model where a measured target leaves room, or told to be out of reach."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeprune.errors import TargetError
from edgeprune.latency.cost import MacsCost, total
from edgeprune.methods.compact import RuleAllocator, Uniform
from edgeprune.methods.magnitude import score_magnitude
from edgeprune.space.find import find_structure
from edgeprune.space.limits import Limits
from edgeprune.space.ranking import ByScore
from edgeprune.stages.turns import Budget


def test_the_smallest_model_is_taken_within_the_tolerance_only() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
    structure, costs = find_structure(net, torch.randn(1, 3, 8, 8)), MacsCost()
    whole = total(structure.layers, structure.sizes, costs)
    ranking = ByScore(score_magnitude(net, structure))
    allocator = RuleAllocator(structure, ranking, costs, lambda *_: 0.0, Limits(8, 8), Uniform(structure.sizes))
    least = allocator.smallest()
    share = least.cost / whole
    goal = share / 1.02

    def budget(tolerance: float) -> Budget:
        return Budget(structure, costs, lambda share: share * whole, lambda cost: cost / whole, goal, 8, tolerance)

    budget(0.03).check_goal(allocator)
    budget(0.01).check_goal(allocator, slack=0.02)
    assert budget(0.03).choice(allocator, goal) == least
    for tolerance in (0.0, 0.01):
        with pytest.raises(TargetError, match=rf"{goal:.3g}x cannot be reached: .* would take {share:.3g}x"):
            budget(tolerance).choice(allocator, goal)
        with pytest.raises(TargetError, match="cannot be reached"):
            budget(tolerance).check_goal(allocator, slack=0.0 if tolerance else 0.02)  # what is counted has none
    assert budget(0.0).choice(allocator, 0.9).cost <= 0.9 * whole
