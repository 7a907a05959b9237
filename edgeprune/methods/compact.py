"""Widths by a rule with one number in it: every layer alike, one threshold over all scores, or over all batch norm
scales. The number is the share of units to remove; the allocator takes the least at which the budget is met.

`uniform` and `global` are those of the study of compact networks (Khan et al., Pruning Compact ConvNets for Efficient
Inference, arXiv 2301.04502, section 3); `scales` is REPrune's (`scales.py`). None of them knows what a unit costs,
which is what the judged allocator adds; they are here to be compared with, and for budgets as published.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from edgeprune.latency.cost import CostModel, total
from edgeprune.search.path import Choice, Judge, out_of_reach
from edgeprune.space.limits import Limits, allowed_widths
from edgeprune.space.ranking import Ranking, Scores, gone_of
from edgeprune.space.units import Structure

JUDGED = ", or take prune.allocator = 'judged'"  # what may reach what a rule cannot
SHARES = np.linspace(0.0, 1.0, 1025)[1:]  # of the units to remove, those that are tried


class Rule(Protocol):
    """How many units each group should keep at a share of units to remove."""

    def kept(self, share: float) -> Mapping[str, int]: ...


class Uniform:
    """Every group loses the same share of its units."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes

    def kept(self, share: float) -> dict[str, int]:
        return {name: math.ceil((1 - share) * size - 1e-9) for name, size in self._sizes.items()}


class GlobalThreshold:
    """One threshold over the scores of all groups: what scores at most as much goes."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._all = np.sort(np.concatenate([np.asarray(values) for values in scores.values()]))

    def kept(self, share: float) -> dict[str, int]:
        threshold = self._all[max(0, math.ceil(share * len(self._all)) - 1)]
        return {name: int((values > threshold).sum()) for name, values in self._scores.items()}


def least_cost(structure: Structure, costs: CostModel, limits: Limits, named: Collection[str]) -> float:
    """What no rule that names these groups can get below, whatever it goes by."""
    kept = {g.id: allowed_widths(g, limits)[-1] if g.id in named else g.size for g in structure.groups}
    return total(structure.layers, kept, costs)


class RuleAllocator:
    """Chooses the widths that a rule gives at the least share that meets a budget.

    Widths are rounded up to the next that is allowed, so no group loses more than the rule says. Groups that the rule
    does not name stay whole, and so do residual branches.

    Args:
        structure, ranking, costs, judge, limits: as for `Allocator`; only the answer is judged.
    """

    def __init__(
        self,
        structure: Structure,
        ranking: Ranking,
        costs: CostModel,
        judge: Judge,
        limits: Limits,
        rule: Rule,
    ) -> None:
        self.structure, self.costs, self.judge, self.limits = structure, costs, judge, limits
        self._ranking, self._rule = ranking, rule

    def within(self, budget: float, *, granularity: int | None = None) -> Choice:
        """The choice for a budget.

        Raises:
            TargetError: no share of the rule meets it (the message says what the cheapest costs).
        """
        limits = replace(self.limits, granularity=granularity or self.limits.granularity)
        for kept in self._models(limits):
            if self._cost(kept) <= budget:
                return self._choice(kept)
        whole = self._cost(self.structure.sizes)
        raise out_of_reach(budget, self.smallest().cost, whole, also=JUDGED)

    def smallest(self) -> Choice:
        """The cheapest that the rule gives at any share."""
        return self._choice(min(itertools.islice(self._models(self.limits), 1, None), key=self._cost))

    def _models(self, limits: Limits) -> Iterator[dict[str, int]]:
        """The whole model, then what the rule keeps at growing shares; of shares that keep the same only the first."""
        allowed = {group.id: allowed_widths(group, limits) for group in self.structure.groups}
        kept = dict(self.structure.sizes)
        yield kept
        for number, share in enumerate(SHARES):
            wanted, before = self._rule.kept(share), kept
            kept = {
                name: min(width for width in widths if width >= min(wanted.get(name, widths[0]), widths[0]))
                for name, widths in allowed.items()
            }
            if kept != before or not number:
                yield kept

    def _cost(self, kept: Mapping[str, int]) -> float:
        return total(self.structure.layers, kept, self.costs)

    def _choice(self, kept: Mapping[str, int]) -> Choice:
        removed = gone_of(self._ranking, kept)
        return Choice(kept, removed, (), self._cost(kept), self.judge(removed, ()))
