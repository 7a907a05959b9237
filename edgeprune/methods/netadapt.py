"""NetAdapt: the network gives up a little of its cost at a time, and each step is the layer's that loses least.

Yang et al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications (ECCV 2018, arXiv 1804.03230),
algorithm 1: in each step every layer proposes its widest cut that saves the step by the latency table, each proposal is
tuned for a short time, and the most accurate is kept. Steps shrink by a constant factor.

Ours differs where their weights go from step to step: here each proposal is tuned from the model's own weights with all
that is gone (the judge does that), since a plan is a choice of units, and what is re-trained is re-trained afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.errors import TrainingDiverged
from edgeprune.latency.cost import total
from edgeprune.methods.magnitude import Magnitude
from edgeprune.search.problem import Chosen, Problem, out_of_reach

FIRST_STEP = 1 / 16  # of the unpruned cost
DECAY = 0.96  # of the step, at each


class NetAdaptMethod(Magnitude):
    """NetAdapt as published: the filters with the smallest norms go, from the layer that loses least."""

    name = "netadapt"
    allocators = ("netadapt",)


@dataclass(frozen=True)
class _Stop:
    """A model on the way: its widths and what it costs."""

    kept: Mapping[str, int]
    cost: float


class NetAdapt:
    """Chooses widths step by step; residual branches stay.

    Args:
        problem: whose judge tunes a proposal for a short time before it is judged (`short_training.py`).
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self._space = problem, problem.space
        self._path = [self._stop(problem.structure.sizes)]
        self._losses: dict[tuple[int, ...], float] = {}

    def within(self, budget: float, *, granularity: int | None = None) -> Chosen:
        """The choice for a budget; the last step goes no further than it must, at a finer granularity where one is
        given. The way there is kept for other budgets.

        Raises:
            TargetError: even the smallest model allowed costs more than the budget.
            TrainingDiverged: all that a step proposes loses more than numbers tell.
        """
        while self._path[-1].cost > budget:
            here, number = self._path[-1], len(self._path) - 1
            step = FIRST_STEP * DECAY**number * self._path[0].cost
            self._path.append(self._proposed(here, here.cost - step, self._space.widths, budget))
            if self.problem.on_step is not None:
                self.problem.on_step(self._path[-1].cost, len(self._losses))
        first = next(number for number, stop in enumerate(self._path) if stop.cost <= budget)
        here, widths = self._path[max(0, first - 1)], self._space.finer(granularity).widths
        while here.cost > budget:
            here = self._proposed(here, budget, widths, budget)
        return self._chosen(here)

    def smallest(self) -> Chosen:
        """Every group at its least width."""
        return self._chosen(self._stop({name: widths[-1] for name, widths in self._space.widths.items()}))

    def _proposed(self, here: _Stop, goal: float, widths: Mapping[str, tuple[int, ...]], budget: float) -> _Stop:
        """The best of the groups' proposals: each its widest cut down to the goal, or to its least width where only
        several groups together can reach that."""
        proposals = []
        for name, allowed in widths.items():
            narrower = [self._stop({**here.kept, name: width}) for width in allowed if width < here.kept[name]]
            saving = [stop for stop in narrower if stop.cost < here.cost]
            if saving:
                proposals.append(next((stop for stop in saving if stop.cost <= goal), saving[-1]))
        if not proposals:
            whole = self._path[0].cost
            raise out_of_reach(f"{budget / whole:.3g}x", f"{here.cost / whole:.3g}x")
        reaching = [stop for stop in proposals if stop.cost <= goal] or proposals
        best = min(reaching, key=self._loss)
        if not math.isfinite(self._loss(best)):
            raise TrainingDiverged(
                "NetAdapt's short trainings diverge: no proposal's loss is a number",
                where=f"at {best.cost / self._path[0].cost:.2f}x",
                hint="lower tune.lr (the short trainings take 0.01 at most), or take prune.allocator = 'judged'",
            )
        return best

    def _loss(self, stop: _Stop) -> float:
        """As judged, once for each model; infinite where it answers no numbers."""
        key = tuple(stop.kept.values())
        if key not in self._losses:
            loss = self.problem.judge(self._space.subnet(stop.kept, self.problem.ranking))
            self._losses[key] = loss if math.isfinite(loss) else math.inf
        return self._losses[key]

    def _stop(self, kept: Mapping[str, int]) -> _Stop:
        return _Stop(kept, total(self.problem.structure.layers, kept, self.problem.costs))

    def _chosen(self, stop: _Stop) -> Chosen:
        return Chosen(self._space.subnet(stop.kept, self.problem.ranking), stop.cost, self._loss(stop))
