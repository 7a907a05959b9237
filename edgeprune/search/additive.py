"""An allocator for additive losses: each width of each group, and each branch, is judged alone; the choice is exact.

What two cuts lose together is taken as the sum of what each loses alone, which the path of `allocate.py` does not
assume; in return no better choice exists (`exact.py`), and another budget asks the judge for no more than its answer.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from edgeprune.latency.cost import CostModel
from edgeprune.search.milp import Losses, Problem, Solution
from edgeprune.search.path import Choice, Judge
from edgeprune.space.limits import Limits, allowed_widths
from edgeprune.space.ranking import Ranking, gone_of
from edgeprune.space.units import Structure


class AdditiveAllocator:
    """Chooses what goes so that the sum of the losses is least within a budget; arguments as for `Allocator`.

    `value` tells what each width and branch loses alone, where that is not what the judge says; the choice's own loss
    is always the judge's.
    """

    def __init__(
        self,
        structure: Structure,
        ranking: Ranking,
        costs: CostModel,
        judge: Judge,
        limits: Limits,
        *,
        value: Judge | None = None,
    ) -> None:
        self.structure, self.costs, self.judge, self.limits = structure, costs, judge, limits
        self._branches = limits.droppable(structure)
        self._ranking = ranking
        self._judged: dict[tuple[str, int], float] = {}
        self._problems: dict[int, Problem] = {}
        self._value = value or judge
        self._whole = self._value({}, ())

    def within(self, budget: float, *, granularity: int | None = None) -> Choice:
        """The choice for a budget, at a finer granularity where one is given.

        Raises:
            TargetError: even the smallest model allowed costs more than the budget.
            TooManyChoices: more act on one layer than an exact allocation can hold.
        """
        return self._choice(self._problem(granularity or self.limits.granularity).best(budget))

    def smallest(self) -> Choice:
        """The choice of the least cost."""
        return self._choice(self._problem(self.limits.granularity).cheapest())

    def _problem(self, granularity: int) -> Problem:
        if granularity not in self._problems:
            limits = replace(self.limits, granularity=granularity)
            groups = {g.id: self._losses(g.id, allowed_widths(g, limits)) for g in self.structure.groups}
            alone = {branch.id: self._alone({}, (branch.id,)) for branch in self._branches}
            branches = {name: max(0.0, loss) for name, loss in alone.items() if math.isfinite(loss)}
            self._problems[granularity] = Problem(self.structure, Losses(groups, branches), self.costs)
        return self._problems[granularity]

    def _losses(self, name: str, widths: tuple[int, ...]) -> dict[int, float]:
        """The rise of the loss at each width; fewer units never lose less by more than noise. A width at which the
        model answers no numbers is no choice."""
        found: dict[int, float] = {}
        most = 0.0
        for width in widths:
            if (name, width) not in self._judged:
                gone = gone_of(self._ranking, {name: width})
                self._judged[name, width] = self._alone(gone, ()) if gone else 0.0
            if math.isfinite(self._judged[name, width]):
                most = found[width] = max(most, self._judged[name, width])
        return found

    def _alone(self, removed: dict[str, tuple[int, ...]], branches: Collection[str]) -> float:
        return self._value(removed, branches) - self._whole

    def _choice(self, found: Solution) -> Choice:
        removed = gone_of(self._ranking, found.kept)
        loss = self.judge(removed, found.dropped)
        return Choice(found.kept, removed, found.dropped, found.cost, loss)
