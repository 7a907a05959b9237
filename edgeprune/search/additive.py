"""An allocator for additive losses: each option of each decision is judged alone; the choice is exact.

What two cuts lose together is taken as the sum of what each loses alone, which `path.py` does not assume; in return no
better choice exists (`milp.py`), and another budget asks the judge for no more than its answer.
"""

from __future__ import annotations

import math

from edgeprune.search.milp import Program, Solution
from edgeprune.search.problem import Chosen, Judge, Problem
from edgeprune.space.decisions import Decision
from edgeprune.space.subnet import WHOLE


class AdditiveAllocator:
    """Chooses what goes so that the sum of the losses is least within a budget.

    `value` tells what each option loses alone, where that is not what the judge says; the choice's own loss is always
    the judge's.
    """

    def __init__(self, problem: Problem, *, value: Judge | None = None) -> None:
        self.problem = problem
        self._judged: dict[tuple[str, int], float] = {}
        self._programs: dict[int, Program] = {}
        self._value = value or problem.judge
        self._whole = self._value(WHOLE)

    def within(self, budget: float, *, granularity: int | None = None) -> Chosen:
        """The choice for a budget, at a finer granularity where one is given.

        Raises:
            TargetError: even the smallest model allowed costs more than the budget.
            TooManyChoices: more act on one layer than an exact allocation can hold.
        """
        return self._chosen(self._program(granularity).best(budget))

    def smallest(self) -> Chosen:
        """The choice of the least cost."""
        return self._chosen(self._program(None).cheapest())

    def _program(self, granularity: int | None) -> Program:
        space = self.problem.space.finer(granularity)
        if (key := space.limits.granularity) not in self._programs:
            found = {decision.id: self._losses(decision) for decision in space.decisions}
            losses = {name: loss for name, loss in found.items() if name in space.widths or len(loss) > 1}
            self._programs[key] = Program(self.problem.structure, losses, self.problem.costs)
        return self._programs[key]

    def _losses(self, decision: Decision) -> dict[int, float]:
        """The rise of the loss at each option; less that stays never loses less by more than noise. An option at which
        the model answers no numbers is none."""
        found: dict[int, float] = {}
        most = 0.0
        for option in decision.options:
            alone = 0.0 if option == decision.options[0] else self._alone(decision.id, option)
            if math.isfinite(alone):
                most = found[option] = max(most, alone)
        return found

    def _alone(self, name: str, option: int) -> float:
        if (name, option) not in self._judged:
            subnet = self.problem.space.subnet({name: option}, self.problem.ranking)
            self._judged[name, option] = self._value(subnet) - self._whole
        return self._judged[name, option]

    def _chosen(self, found: Solution) -> Chosen:
        subnet = self.problem.space.subnet(found.point, self.problem.ranking)
        return Chosen(subnet, found.cost, self.problem.judge(subnet))
