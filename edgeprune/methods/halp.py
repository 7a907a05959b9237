"""The knapsack of HALP: what a choice loses is the sum of the scores of the units that go.

Shen et al., Structural Pruning via Latency-Saliency Knapsack (NeurIPS 2022, arXiv 2210.06659): a channel group's value
is its summed importance, its weight the latency that it adds at its rank. Their solver goes through the groups by
augmented dynamic programming; here the same problem is solved exactly (`search/milp.py`), with the latencies of coupled
layers taken together. The scores are theirs, |gamma dL/dgamma + beta dL/dbeta|,
but of channels that go through a depthwise convolution (`taylor.py`).
"""

from __future__ import annotations

from edgeprune.methods.taylor import Taylor
from edgeprune.space.ranking import Scores
from edgeprune.space.subnet import Subnet


class Halp(Taylor):
    """HALP: Taylor's scores, added up under a budget; `[prune.halp]` takes what `[prune.taylor]` takes."""

    name = "halp"
    allocators = ("knapsack",)


class SummedScores:
    """A `Judge` that adds up scores; it has none for branches."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores

    def __call__(self, subnet: Subnet) -> float:
        if subnet.dropped:
            raise ValueError("a branch has no score")
        return sum(float(self._scores[name][list(units)].sum()) for name, units in subnet.units.items())
