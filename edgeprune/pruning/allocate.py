"""The one allocator: scores + costs + a budget -> how many units each group keeps, and which.

A move takes the lowest-scored units of one group down to a smaller allowed width, or a residual branch away as a
whole. Its price is the score it loses per cost it saves. The cheapest move is taken until the budget is met; looking
at all smaller widths of a group, not only the next one, steps over the plateaus of a kernel's staircase. At the end,
units that still fit are put back.
Costs come from a `CostModel`, so latency, MACs, parameters and size are all the same problem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.errors import TargetError
from edgeprune.latency.cost import CostModel
from edgeprune.structure.units import Branch, Layer, Structure, UnitGroup

Scores = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Choice:
    """What stays: units kept per group and the removed indices (the lowest scores), with the predicted cost.

    Groups that live in a removed branch are listed at their full size: the branch goes with all its units.
    """

    kept: Mapping[str, int]
    removed: Mapping[str, tuple[int, ...]]
    branches: tuple[str, ...]
    cost: float
    score_lost: float


class _State:
    """Kept widths, and the cost of each layer at them; only layers that a move touches are priced again."""

    def __init__(self, structure: Structure, costs: CostModel) -> None:
        self.layers, self.costs, self.kept = structure.layers, costs, structure.sizes
        self.branches: dict[str, Branch] = {branch.id: branch for branch in structure.branches}
        self.dropped: list[str] = []
        number_of = {layer.name: number for number, layer in enumerate(self.layers)}
        self.inside = {b.id: [number_of[name] for name in b.layers] for b in structure.branches}
        self.touching: dict[str, list[int]] = {name: [] for name in self.kept}
        for number, layer in enumerate(self.layers):
            for name in _groups_of(layer):
                self.touching[name].append(number)
        self.layer_costs = [costs.cost(layer.signature(self.kept)) for layer in self.layers]
        self.gone: set[int] = set()

    @property
    def total(self) -> float:
        return float(sum(self.layer_costs))

    def saving(self, group: str, width: int) -> float:
        """Cost saved if the group kept `width` units (negative when that costs more)."""
        kept = {**self.kept, group: width}
        touched = (n for n in self.touching[group] if n not in self.gone)
        return sum(self.layer_costs[n] - self.costs.cost(self.layers[n].signature(kept)) for n in touched)

    def branch_saving(self, branch: str) -> float:
        return sum(self.layer_costs[n] for n in self.inside[branch])

    def neighbours(self, group: str) -> set[str]:
        """The groups (this one included) that share a layer with a group."""
        return {group}.union(*(_groups_of(self.layers[number]) for number in self.touching[group]))

    def narrow(self, group: str, width: int) -> None:
        self.kept[group] = width
        for number in self.touching[group]:
            if number not in self.gone:
                self.layer_costs[number] = self.costs.cost(self.layers[number].signature(self.kept))

    def drop(self, branch: str) -> None:
        self.dropped.append(branch)
        for number in self.inside[branch]:
            self.gone.add(number)
            self.layer_costs[number] = 0.0

    def is_dropped(self, group: str) -> bool:
        """Whether a group went with its branch."""
        return any(group in self.branches[name].groups for name in self.dropped)


def _groups_of(layer: Layer) -> set[str]:
    return {name for name, _ in (*layer.in_width.groups, *layer.out_width.groups)}


def allowed_widths(group: UnitGroup, *, granularity: int, minimum: int) -> tuple[int, ...]:
    """Widths a group may have, descending from its full size: multiples of the granularity, not under the minimum."""
    step = int(np.lcm(granularity, group.multiple))
    floor = min(group.size, max(minimum, step))
    return (group.size, *(w for w in range((group.size - 1) // step * step, 0, -step) if w >= floor))


def minimal_widths(structure: Structure, *, granularity: int, minimum: int) -> dict[str, int]:
    """The smallest allowed width of each group."""
    return {g.id: allowed_widths(g, granularity=granularity, minimum=minimum)[-1] for g in structure.groups}


def allocate(
    structure: Structure,
    scores: Scores,
    costs: CostModel,
    budget: float,
    *,
    branch_scores: Mapping[str, float] | None = None,
    granularity: int = 8,
    minimum: int = 8,
) -> Choice:
    """Choose the widths and branches that lose the least score with a cost within the budget.

    Args:
        structure: the model's groups, layers and branches.
        scores: for each group, the estimated rise of the loss if a unit goes, shape (units,).
        costs: what a layer costs at given widths, in the budget's unit.
        budget: the total cost allowed.
        branch_scores: the estimated rise of the loss if a branch goes, in the unit of `scores`; branches
            that are not named stay.
        granularity: kept widths are multiples of this (what the device's kernels like).
        minimum: no group is cut below this many units.

    Raises:
        TargetError: even the smallest model allowed costs more than the budget.
    """
    problem = _Problem(structure, scores, branch_scores or {}, granularity, minimum)
    state = _State(structure, costs)
    moves: dict[str, _Move | None] = {}
    while state.total > budget:
        for name in problem.widths:
            if name not in moves:
                moves[name] = None if state.is_dropped(name) else _cheapest_width(state, name, problem)
        candidates = [*(move for move in moves.values() if move), *_branch_moves(state, problem)]
        best = min(candidates, key=lambda move: move.price, default=None)
        if best is None:
            raise TargetError(
                f"the budget {budget:.6g} cannot be reached: the smallest model allowed costs {state.total:.6g}",
                hint="raise the target, or lower prune.minimum_width or prune.granularity",
            )
        if best.width is None:
            state.drop(best.name)
            moves.clear()
        else:
            state.narrow(best.name, best.width)
            for name in state.neighbours(best.name):  # only their savings have changed
                moves.pop(name, None)
    _refill(state, problem, budget)
    return _choice(state, problem)


class _Problem:
    """What the allocator is asked: allowed widths, and the score lost at each."""

    def __init__(
        self,
        structure: Structure,
        scores: Scores,
        branch_scores: Mapping[str, float],
        granularity: int,
        minimum: int,
    ) -> None:
        self.scores, self.branch_scores, self.sizes = scores, branch_scores, structure.sizes
        self.widths = {g.id: allowed_widths(g, granularity=granularity, minimum=minimum) for g in structure.groups}
        self._lost = {g.id: np.concatenate([[0.0], np.cumsum(np.sort(scores[g.id]))]) for g in structure.groups}

    def lost(self, group: str, width: int) -> float:
        """Score lost when a group keeps `width` units."""
        return float(self._lost[group][self.sizes[group] - width])


@dataclass(frozen=True)
class _Move:
    price: float  # score lost per cost saved
    name: str
    width: int | None  # None: the branch of that name goes


def _cheapest_width(state: _State, name: str, problem: _Problem) -> _Move | None:
    here = state.kept[name]
    best: _Move | None = None
    for width in problem.widths[name]:
        if width < here and (saved := state.saving(name, width)) > 0:
            price = (problem.lost(name, width) - problem.lost(name, here)) / saved
            if best is None or price < best.price:
                best = _Move(price, name, width)
    return best


def _branch_moves(state: _State, problem: _Problem) -> Iterator[_Move]:
    """What is lost already by narrowing a branch's own groups is not lost again when the branch goes."""
    for name, score in problem.branch_scores.items():
        if name not in state.dropped and (saved := state.branch_saving(name)) > 0:
            already = sum(problem.lost(group, state.kept[group]) for group in state.branches[name].groups)
            yield _Move(max(0.0, score - already) / saved, name, None)


def _refill(state: _State, problem: _Problem, budget: float) -> None:
    """Put back units whose cost still fits, the most score first (the last move usually overshoots)."""
    while True:
        room = budget - state.total
        best: tuple[float, str, int] | None = None
        for name, widths in problem.widths.items():
            here = state.kept[name]
            if state.is_dropped(name):
                continue
            for width in widths:
                if width <= here or -state.saving(name, width) > room:
                    continue
                gain = problem.lost(name, here) - problem.lost(name, width)
                if best is None or gain > best[0]:
                    best = (gain, name, width)
        if best is None:
            return
        state.narrow(best[1], best[2])


def _choice(state: _State, problem: _Problem) -> Choice:
    sizes, scores = problem.sizes, problem.scores
    kept = {name: sizes[name] if state.is_dropped(name) else width for name, width in state.kept.items()}
    removed = {
        name: tuple(sorted(int(i) for i in np.argsort(scores[name], kind="stable")[: sizes[name] - width]))
        for name, width in kept.items()
        if width < sizes[name]
    }
    lost = sum(problem.lost(name, width) for name, width in kept.items())
    lost += sum(problem.branch_scores[name] for name in state.dropped)
    branches = tuple(name for name in state.branches if name in state.dropped)
    return Choice(kept, removed, branches, state.total, lost)
