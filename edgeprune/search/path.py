"""The judged allocator: ranks + costs + a judge of what is lost -> how many units each group keeps, and which.

It walks a path of ever cheaper models down from the unpruned one. A move takes the lowest-ranked units of one group
down to a smaller allowed width, or a residual branch away as a whole. Each step takes the move with the least price,
the rise of the judged loss per cost saved, *judged together with all that is gone already*: what two cuts lose
together is not the sum of what each loses alone. Any smaller width of a group is a move, not only the next one, which
steps over the plateaus of a kernel's staircase. A budget is met by the first model of the path within it, with units
put back that still fit. Then cuts are exchanged: one is taken back and others go instead, as long as the loss falls.
Costs come from a `CostModel`, so latency, MACs, parameters and size are all the same problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from edgeprune.errors import TargetError
from edgeprune.search.problem import Chosen, Problem, out_of_reach
from edgeprune.space.decisions import GONE, Space
from edgeprune.space.units import Branch

STEPS = 80  # a move saves at least this part of the unpruned model's cost, where its group has that much
RIVALS = 4  # moves that are judged anew at each step; prices rise along the path, so the cheapest ones are enough
EXCHANGES = 2  # times as many models as on the way down are judged for exchanges, at most
TRIES = 4  # times `EXCHANGES`: exchanges in a row that bring nothing, after which no more are tried
LEAST = 1e-3  # of the judge's unit: rises below it are noise, and the move that saves the most comes first


@dataclass(frozen=True)
class _Move:
    """A decision and the option that it goes to."""

    name: str
    option: int


class _State:
    """A point of the space, and the cost of each layer there; only layers that a move touches are priced again."""

    def __init__(self, problem: Problem) -> None:
        structure, self.costs = problem.structure, problem.costs
        self.layers, self.sizes = structure.layers, structure.sizes
        self.kept: dict[str, int] = dict(structure.sizes)
        self.branches: dict[str, Branch] = {branch.id: branch for branch in structure.branches}
        self.dropped: tuple[str, ...] = ()
        number_of = {layer.name: number for number, layer in enumerate(self.layers)}
        self.inside = {b.id: [number_of[name] for name in b.layers] for b in structure.branches}
        self.touching: dict[str, list[int]] = {name: [] for name in self.kept}
        for number, layer in enumerate(self.layers):
            for name in {*layer.in_width.groups, *layer.out_width.groups}:
                self.touching[name].append(number)
        self.layer_costs = [self.costs.cost(layer.signature(self.kept)) for layer in self.layers]
        self.gone: frozenset[int] = frozenset()

    @property
    def total(self) -> float:
        return math.fsum(self.layer_costs)  # as `total` adds them: a budget may be the very sum

    @property
    def key(self) -> tuple[object, ...]:
        return tuple(self.kept.values()), frozenset(self.dropped)

    @property
    def point(self) -> dict[str, int]:
        return {**self.kept, **dict.fromkeys(self.dropped, GONE)}

    def saving(self, move: _Move) -> float:
        """Cost saved by a move (negative when that costs more)."""
        if move.name in self.branches:
            return sum(self.layer_costs[n] for n in self.inside[move.name])
        kept = {**self.kept, move.name: move.option}
        touched = (n for n in self.touching[move.name] if n not in self.gone)
        return sum(self.layer_costs[n] - self.costs.cost(self.layers[n].signature(kept)) for n in touched)

    def after(self, move: _Move) -> _State:
        """The state that a move leads to."""
        state = object.__new__(_State)
        state.__dict__.update(self.__dict__)
        state.layer_costs = list(self.layer_costs)
        if move.name in self.branches:
            state.dropped = (*self.dropped, move.name)
            state.kept = {**self.kept, **{name: self.sizes[name] for name in self.branches[move.name].groups}}
            state.gone = self.gone.union(self.inside[move.name])
            for number in self.inside[move.name]:
                state.layer_costs[number] = 0.0
            return state
        state.kept = {**self.kept, move.name: move.option}
        for number in self.touching[move.name]:
            if number not in state.gone:
                state.layer_costs[number] = self.costs.cost(self.layers[number].signature(state.kept))
        return state

    def at(self, kept: Mapping[str, int], dropped: Iterable[str]) -> _State:
        """The unpruned state, this, with these widths and without these branches."""
        state = self
        for name in dropped:
            state = state.after(_Move(name, GONE))
        for name, width in kept.items():
            if width < self.kept[name] and not state.is_dropped(name):
                state = state.after(_Move(name, width))
        return state

    def is_dropped(self, group: str) -> bool:
        """Whether a group went with its branch."""
        return any(group in self.branches[name].groups for name in self.dropped)


class PathAllocator:
    """Chooses what goes so that the judged loss is low and the cost within a budget.

    Args:
        problem: what to choose from and by; `on_step` is called after each step along the path and after each exchange.
        exchanges: how many models are judged for exchanges at most, for each budget, as a multiple of those on the way
            down; where it is raised afterwards, the next choice for a budget goes on from what was judged.
    """

    def __init__(self, problem: Problem, *, exchanges: float = EXCHANGES) -> None:
        self.problem, self.exchanges, self._walked = problem, exchanges, 0
        self._space: Space = problem.space
        self._path = [_State(problem)]
        self._step_saving = self._path[0].total / STEPS
        self._losses: dict[tuple[object, ...], float] = {}  # infinite where the model answers no numbers
        self._rises: dict[_Move, float] = {}
        self._worth: dict[str, float] = {}  # of what is cut: the loss for its saving, where it was judged last

    def within(self, budget: float, *, granularity: int | None = None) -> Chosen:
        """The choice for a budget; units are put back at a finer granularity where one is given.

        Raises:
            TargetError: even the smallest model allowed costs more than the budget.
        """
        judged = len(self._losses)
        while self._path[-1].total > budget:
            self._path.append(self._step(self._path[-1], budget))
            self._tell(self._path[-1].total)
        widths = self._space.finer(granularity).widths
        state = self._refilled(next(state for state in self._path if state.total <= budget), budget, widths)
        self._walked += len(self._losses) - judged
        return self._chosen(self._exchanged(state, budget, widths))

    def smallest(self) -> Chosen:
        """Every group at its least width, and every branch gone that may go."""
        least, dropped = self._space.least, [branch.id for branch in self._space.droppable]
        return self._chosen(self._path[0].at({name: least[name] for name in self._space.widths}, dropped))

    def _step(self, here: _State, budget: float, *, but: str | None = None) -> _State:
        """The next state on a way down: the cheapest move, judged against its nearest rivals; none of the group or
        branch `but`."""
        moves = {move: saved for move, saved in self._moves(here) if move.name != but}
        if not moves:
            whole = self._path[0].total
            raise out_of_reach(f"{budget / whole:.3g}x", f"{here.total / whole:.3g}x")
        fresh = {move for move in moves if move not in self._rises}
        for move in fresh:
            self._rises[move] = self._rise(here, move)

        def price(move: _Move) -> float:
            return max(self._rises[move], LEAST) / moves[move]

        while True:
            ranked = sorted(moves, key=price)
            stale = next((move for move in ranked[:RIVALS] if move not in fresh), None)
            if stale is None:
                return here.after(ranked[0])
            fresh.add(stale)
            self._rises[stale] = self._rise(here, stale)

    def _rise(self, here: _State, move: _Move) -> float:
        """Of the judged loss by a move; infinite where the model answers no numbers after it."""
        after = self._loss(here.after(move))
        return after - self._loss(here) if math.isfinite(after) else math.inf

    def _moves(self, here: _State) -> Iterator[tuple[_Move, float]]:
        """The moves from a state, with the cost each saves: for a group the least cut that is worth a step."""
        for name, widths in self._space.widths.items():
            if here.is_dropped(name):
                continue
            narrower = [_Move(name, width) for width in widths if width < here.kept[name]]
            savings = [(move, saved) for move in narrower if (saved := here.saving(move)) > 0]
            if savings:
                yield next((pair for pair in savings if pair[1] >= self._step_saving), savings[-1])
        for branch in self._space.droppable:
            move = _Move(branch.id, GONE)
            if branch.id not in here.dropped and (saved := here.saving(move)) > 0:
                yield move, saved

    def _exchanged(self, state: _State, budget: float, widths: Mapping[str, tuple[int, ...]]) -> _State:
        """Exchange what went for something else as long as the loss falls.

        The way down is greedy: what was cheapest early need not be so with all that went after it. So one cut after the
        other, the dearest first, is taken back and others go instead, until the budget is met again.
        """
        most = len(self._losses) + self.exchanges * self._walked
        while len(self._losses) < most:
            better = self._better(state, budget, widths, most)
            if better is None:
                break
            state = better
        return state

    def _better(
        self, state: _State, budget: float, widths: Mapping[str, tuple[int, ...]], most: float
    ) -> _State | None:
        """The first exchange that loses less; None where none of those tried does, or `most` models were judged."""
        for name, wider in islice(self._taken_back(state), math.ceil(TRIES * self.exchanges)):
            if len(self._losses) >= most:
                break
            other = self._instead(wider, name, budget, widths)
            if other is not None and self._loss(other) < self._loss(state) - LEAST:
                return other
        return None

    def _taken_back(self, state: _State) -> Iterator[tuple[str, _State]]:
        """Each cut's group or branch with the state without it, those first that lose most for what they save.

        What a cut lost for its saving where it was judged last tells which are worth judging anew, as on the way down.
        """
        wider = {name: other for name, other in self._wider(state) if other.total > state.total}
        fresh: set[str] = set()
        while wider:
            ranked = sorted(wider, key=lambda name: self._worth.get(name, math.inf), reverse=True)
            stale = next((name for name in ranked[:RIVALS] if name not in fresh), None)
            if stale is None:
                yield ranked[0], wider.pop(ranked[0])
                continue
            fresh.add(stale)
            other = wider[stale]
            self._worth[stale] = (self._loss(state) - self._loss(other)) / (other.total - state.total)

    def _wider(self, state: _State) -> Iterator[tuple[str, _State]]:
        """Each cut's group or branch with the state without it: all of a branch, of a group what is worth a step."""
        whole = self._path[0]
        for name in state.dropped:
            kept = {group: width for group, width in state.kept.items() if group not in state.branches[name].groups}
            yield name, whole.at(kept, [other for other in state.dropped if other != name])
        for name, widths in self._space.widths.items():
            if state.kept[name] < widths[0] and not state.is_dropped(name):
                wider = [state.after(_Move(name, width)) for width in reversed(widths) if width > state.kept[name]]
                saved = state.total + self._step_saving
                yield name, next((other for other in wider if other.total >= saved), wider[-1])

    def _instead(self, state: _State, but: str, budget: float, widths: Mapping[str, tuple[int, ...]]) -> _State | None:
        """The way down to the budget from a state without cutting this group or branch; None where there is none."""
        try:
            while state.total > budget:
                state = self._step(state, budget, but=but)
        except TargetError:
            return None
        self._tell(state.total)
        return self._refilled(state, budget, widths)

    def _refilled(self, state: _State, budget: float, widths: Mapping[str, tuple[int, ...]]) -> _State:
        """Put back units that still fit, the greatest fall of the loss first (the last move usually overshoots).

        Of each group only the most that fits is judged: more units never raise the loss by more than noise.
        """
        while True:
            room = budget - state.total
            wider = (
                [move for w in widths[name] if w > kept and -state.saving(move := _Move(name, w)) <= room]
                for name, kept in state.kept.items()
                if not state.is_dropped(name)
            )
            fitting = [state.after(moves[0]) for moves in wider if moves]
            if not fitting:
                return state
            state = min(fitting, key=lambda s: (self._loss(s), s.total))

    def _loss(self, state: _State) -> float:
        if state.key not in self._losses:
            loss = self.problem.judge(self._space.subnet(state.point, self.problem.ranking))
            self._losses[state.key] = loss if math.isfinite(loss) else math.inf
        return self._losses[state.key]

    def _tell(self, cost: float) -> None:
        if self.problem.on_step is not None:
            self.problem.on_step(cost, len(self._losses))

    def _chosen(self, state: _State) -> Chosen:
        return Chosen(self._space.subnet(state.point, self.problem.ranking), state.total, self._loss(state))
