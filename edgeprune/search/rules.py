"""Widths by a rule with one number in it, the share of units to remove: the least that meets the budget is taken."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import numpy as np

from edgeprune.latency.cost import CostModel, total
from edgeprune.search.problem import Chosen, Problem, out_of_reach
from edgeprune.space.decisions import Space

JUDGED = ", or take prune.allocator = 'judged'"  # what may reach what a rule cannot
SHARES = np.linspace(0.0, 1.0, 1025)[1:]  # of the units to remove, those that are tried


class Rule(Protocol):
    """How many units each group should keep at a share of units to remove."""

    def kept(self, share: float) -> Mapping[str, int]: ...


def least_cost(space: Space, costs: CostModel, named: Collection[str]) -> float:
    """What no rule that names these groups can get below, whatever it goes by."""
    kept = {name: widths[-1] if name in named else widths[0] for name, widths in space.widths.items()}
    return total(space.structure.layers, kept, costs)


class RuleAllocator:
    """Chooses the widths that a rule gives at the least share that meets a budget.

    Widths are rounded up to the next that is allowed, so no group loses more than the rule says. Groups that the rule
    does not name stay whole, and so do residual branches.

    Args:
        problem: what to choose from and by; only the answer is judged.
    """

    def __init__(self, problem: Problem, rule: Rule) -> None:
        self.problem, self._rule = problem, rule

    def within(self, budget: float, *, granularity: int | None = None) -> Chosen:
        """The choice for a budget.

        Raises:
            TargetError: no share of the rule meets it (the message says what the cheapest costs).
        """
        for kept in self._models(self.problem.space.finer(granularity)):
            if self._cost(kept) <= budget:
                return self._chosen(kept)
        whole = self.problem.whole_cost
        raise out_of_reach(f"{budget / whole:.3g}x", f"{self.smallest().cost / whole:.3g}x", also=JUDGED)

    def smallest(self) -> Chosen:
        """The cheapest that the rule gives at any share."""
        return self._chosen(min(itertools.islice(self._models(self.problem.space), 1, None), key=self._cost))

    def _models(self, space: Space) -> Iterator[dict[str, int]]:
        """The whole model, then what the rule keeps at growing shares; of shares that keep the same only the first."""
        kept = dict(space.structure.sizes)
        yield kept
        for number, share in enumerate(SHARES):
            wanted, before = self._rule.kept(share), kept
            kept = {
                name: min(width for width in widths if width >= min(wanted.get(name, widths[0]), widths[0]))
                for name, widths in space.widths.items()
            }
            if kept != before or not number:
                yield kept

    def _cost(self, kept: Mapping[str, int]) -> float:
        return total(self.problem.structure.layers, kept, self.problem.costs)

    def _chosen(self, kept: Mapping[str, int]) -> Chosen:
        subnet = self.problem.space.subnet(kept, self.problem.ranking)
        return Chosen(subnet, self._cost(kept), self.problem.judge(subnet))
