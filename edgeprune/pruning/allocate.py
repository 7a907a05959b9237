"""The one allocator: scores + costs + a budget -> how many units each group keeps, and which.

A move takes the lowest-scored units of one group down to a smaller allowed width. Its price is the score it loses
per cost it saves. The cheapest move is taken until the budget is met; looking at all smaller widths of a group, not
only the next one, steps over the plateaus of a kernel's staircase. At the end, units that still fit are put back.
Costs come from a `CostModel`, so latency, MACs, parameters and size are all the same problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.errors import TargetError
from edgeprune.latency.cost import CostModel
from edgeprune.structure.units import Layer, Structure, UnitGroup

Scores = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Choice:
    """What stays: units kept per group and the removed indices (the lowest scores), with the predicted cost."""

    kept: Mapping[str, int]
    removed: Mapping[str, tuple[int, ...]]
    cost: float
    score_lost: float


class _State:
    """Kept widths, and the cost of each layer at them; only layers that a move touches are priced again."""

    def __init__(self, layers: Sequence[Layer], costs: CostModel, kept: dict[str, int]) -> None:
        self.layers, self.costs, self.kept = layers, costs, kept
        self.touching: dict[str, list[int]] = {name: [] for name in kept}
        for number, layer in enumerate(layers):
            for name in {name for name, _ in (*layer.in_width.groups, *layer.out_width.groups)}:
                self.touching[name].append(number)
        self.layer_costs = [costs.cost(layer.signature(kept)) for layer in layers]

    @property
    def total(self) -> float:
        return float(sum(self.layer_costs))

    def saving(self, group: str, width: int) -> float:
        """Cost saved if the group kept `width` units (negative when that costs more)."""
        kept = {**self.kept, group: width}
        touched = self.touching[group]
        return sum(self.layer_costs[n] - self.costs.cost(self.layers[n].signature(kept)) for n in touched)

    def neighbours(self, group: str) -> set[str]:
        """The groups (this one included) that share a layer with a group."""
        layers = (self.layers[number] for number in self.touching[group])
        return {group, *(name for layer in layers for name, _ in (*layer.in_width.groups, *layer.out_width.groups))}

    def move(self, group: str, width: int) -> None:
        self.kept[group] = width
        for number in self.touching[group]:
            self.layer_costs[number] = self.costs.cost(self.layers[number].signature(self.kept))


def allowed_widths(group: UnitGroup, *, granularity: int, minimum: int) -> tuple[int, ...]:
    """Widths a group may have, descending from its full size: multiples of the granularity, not under the minimum."""
    step = int(np.lcm(granularity, group.multiple))
    floor = min(group.size, max(minimum, step))
    return (group.size, *(w for w in range((group.size - 1) // step * step, 0, -step) if w >= floor))


def minimal_widths(structure: Structure, *, granularity: int, minimum: int) -> dict[str, int]:
    """The smallest allowed width of each group."""
    return {g.id: allowed_widths(g, granularity=granularity, minimum=minimum)[-1] for g in structure.groups}


def allocate(
    structure: Structure, scores: Scores, costs: CostModel, budget: float, *, granularity: int = 8, minimum: int = 8
) -> Choice:
    """Choose the widths that lose the least score with a cost within the budget.

    Args:
        structure: the model's groups and layers.
        scores: for each group, the estimated rise of the loss if a unit goes, shape (units,).
        costs: what a layer costs at given widths, in the budget's unit.
        budget: the total cost allowed.
        granularity: kept widths are multiples of this (what the device's kernels like).
        minimum: no group is cut below this many units.

    Raises:
        TargetError: even the smallest allowed widths cost more than the budget.
    """
    prefix = {g.id: np.concatenate([[0.0], np.cumsum(np.sort(scores[g.id]))]) for g in structure.groups}
    widths = {g.id: allowed_widths(g, granularity=granularity, minimum=minimum) for g in structure.groups}
    sizes = structure.sizes
    state = _State(structure.layers, costs, dict(sizes))

    def lost(group: str, width: int) -> float:
        return float(prefix[group][sizes[group] - width])

    moves: dict[str, _Move | None] = {}
    while state.total > budget:
        for name, allowed in widths.items():
            if name not in moves:
                moves[name] = _cheapest_move(state, name, allowed, lost)
        best = min((move for move in moves.values() if move), key=lambda move: move.price, default=None)
        if best is None:
            raise TargetError(
                f"the budget {budget:.6g} cannot be reached: the smallest allowed widths cost {state.total:.6g}",
                hint="raise the target, or lower prune.minimum_width or prune.granularity",
            )
        state.move(best.group, best.width)
        for name in state.neighbours(best.group):  # only their savings have changed
            moves.pop(name, None)
    _refill(state, widths, lost, budget)
    return _choice(state, scores, sizes, sum(lost(name, width) for name, width in state.kept.items()))


@dataclass(frozen=True)
class _Move:
    price: float  # score lost per cost saved
    group: str
    width: int


def _cheapest_move(state: _State, name: str, widths: Sequence[int], lost: Callable[[str, int], float]) -> _Move | None:
    here = state.kept[name]
    best: _Move | None = None
    for width in widths:
        if width < here and (saved := state.saving(name, width)) > 0:
            price = (lost(name, width) - lost(name, here)) / saved
            if best is None or price < best.price:
                best = _Move(price, name, width)
    return best


def _refill(
    state: _State, widths: Mapping[str, Sequence[int]], lost: Callable[[str, int], float], budget: float
) -> None:
    """Put back units whose cost still fits, the most score first (the last move usually overshoots)."""
    while True:
        room = budget - state.total
        best: tuple[float, str, int] | None = None
        for name, allowed in widths.items():
            here = state.kept[name]
            for width in allowed:
                if width <= here or -state.saving(name, width) > room:
                    continue
                gain = lost(name, here) - lost(name, width)
                if best is None or gain > best[0]:
                    best = (gain, name, width)
        if best is None:
            return
        state.move(best[1], best[2])


def _choice(state: _State, scores: Scores, sizes: Mapping[str, int], score_lost: float) -> Choice:
    removed = {
        name: tuple(sorted(int(i) for i in np.argsort(scores[name], kind="stable")[: sizes[name] - width]))
        for name, width in state.kept.items()
        if width < sizes[name]
    }
    return Choice(kept=dict(state.kept), removed=removed, cost=state.total, score_lost=score_lost)
