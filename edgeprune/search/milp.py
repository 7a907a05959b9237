"""Exact allocation: of all points of a space within a budget, one that loses least.

Losses are additive here: each decision has a loss for every option (of a width the scores of its lowest units, summed).
Costs are not: a layer's depends on the widths on both of its sides, on several where channels are joined, and is none
where its branch is gone. So every layer, or several that depend on the same choices, is a table over those choices, and
the problem is a mixed-integer linear program:

    minimize   sum of loss[v, a] x[v, a]            x[v, a] = 1 where choice v takes the value a, else 0
    such that  sum over a of x[v, a] = 1            for every choice v
               sum of cost[t, c] y[t, c] <= budget  c: a combination of values of table t's choices
               sum over c with c[v] = a of y[t, c] = x[v, a]   for every table t, choice v of it and value a

With x binary the last lines leave one combination per table: the y need not be integers (Sherali and Adams, 1990).
HiGHS solves it to optimality. That units go from the lowest score up, and that what is coupled goes together, is in
the choices themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import LinearConstraint, milp
from scipy.sparse import coo_array, csr_array

from edgeprune.errors import TargetError, UsageError
from edgeprune.latency.cost import CostModel, total
from edgeprune.search.problem import out_of_reach
from edgeprune.space.decisions import GONE, Point
from edgeprune.space.units import Structure

Floats = npt.NDArray[np.float64]
MOST_COMBINATIONS = 50_000  # of one table: beyond it the choices of a layer are too many to be written down
TOLERANCE = 1e-8  # of the budget: somewhat less than what HiGHS may be over a limit by


class TooManyChoices(UsageError):
    """More choices act on one layer than an exact allocation can write down."""


Losses = Mapping[str, Mapping[int, float]]  # decision -> option -> what is lost, the options as in the space


@dataclass(frozen=True)
class Solution:
    """An optimal point. `loss` is the sum over the decisions, `cost` that of all layers."""

    point: Point
    loss: float
    cost: float


@dataclass(frozen=True)
class _Table:
    """The cost of some layers over the choices that they depend on; `costs` has an axis for each."""

    choices: tuple[str, ...]
    costs: Floats


class Program:
    """The decisions of a structure with their losses and the layers' cost tables.

    Args:
        structure: groups, layers and branches.
        losses: for every group the widths that it may keep; a branch that is not named stays.
        costs: what a layer costs at given widths.

    Raises:
        TooManyChoices: more act on one layer than can be written down.
    """

    def __init__(self, structure: Structure, losses: Losses, costs: CostModel) -> None:
        self._structure, self._costs = structure, costs
        self._branches = tuple(b for b in structure.branches if b.id in losses)
        names = (*structure.sizes, *(branch.id for branch in self._branches))
        self._values: dict[str, tuple[int, ...]] = {name: tuple(losses[name]) for name in names}
        self._losses: dict[str, list[float]] = {name: list(losses[name].values()) for name in names}
        self._tables = self._made_tables()
        sizes = [len(values) for values in self._values.values()]
        self._first = dict(zip(self._values, np.cumsum([0, *sizes]).tolist(), strict=False))
        self._count = sum(sizes)

    def best(self, budget: float) -> Solution:
        """The least loss within a budget.

        Raises:
            TargetError: even the cheapest choice costs more; says what that costs.
        """
        cheapest = self.cheapest()
        if cheapest.cost > budget:
            whole = total(self._structure.layers, self._structure.sizes, self._costs)
            raise out_of_reach(f"{budget / whole:.3g}x", f"{cheapest.cost / whole:.3g}x")
        allowed = budget
        for attempt in range(20):
            found = self._solved(self._loss_row(), allowed)
            if found is None:  # nothing is left below the edge but the cheapest, which is on it
                return cheapest
            if found.cost <= budget:
                return found
            # The solver's tolerance lets it over the edge: less is allowed, by more than that tolerance in the end.
            allowed -= max(2 * (found.cost - budget), TOLERANCE * 2**attempt * budget)
        return cheapest

    def cheapest(self) -> Solution:
        """The least cost of all."""
        found = self._solved(None, math.inf)
        if found is None:
            raise TargetError("the allocation could not be solved", hint="take prune.allocator = 'judged'")
        return found

    def _made_tables(self) -> list[_Table]:
        gathered: dict[tuple[str, ...], Floats] = {}
        for number, layer in enumerate(self._structure.layers):
            names = dict.fromkeys((*layer.in_width.groups, *layer.out_width.groups))
            inside = [branch.id for branch in self._branches if layer.name in branch.layers]
            choices = (*(name for name in names if len(self._values[name]) > 1), *inside)
            fixed = {name: self._values[name][0] for name in names if len(self._values[name]) == 1}
            domains = [self._values[name] for name in choices]
            if math.prod(map(len, domains)) > MOST_COMBINATIONS:
                raise TooManyChoices(
                    f"{len(choices)} choices act on the layer {layer.name}: too many for an exact allocation",
                    hint="raise prune.granularity, or leave prune.allocator at `judged`",
                )
            costs = np.zeros([len(domain) for domain in domains])
            for place in itertools.product(*(range(len(domain)) for domain in domains)):
                values = {name: domain[i] for name, domain, i in zip(choices, domains, place, strict=True)}
                if not any(values[name] == GONE for name in inside):
                    costs[place] = self._costs.cost(self._structure.layers[number].signature({**fixed, **values}))
            key = tuple(sorted(choices))
            ordered = costs.transpose([choices.index(name) for name in key])
            gathered[key] = gathered[key] + ordered if key in gathered else ordered
        return [_Table(choices, costs) for choices, costs in gathered.items()]

    def _loss_row(self) -> Floats:
        return np.array([loss for losses in self._losses.values() for loss in losses])

    def _solved(self, objective: Floats | None, allowed: float) -> Solution | None:
        """Minimize a row over the x, or the cost where none is given; None where nothing is allowed."""
        if not self._values:
            return self._read(np.empty(0))
        constant, cost_row, ties = self._program()
        extra = len(cost_row) - self._count
        unit = float(np.abs(cost_row).max(initial=0.0)) or 1.0
        row = cost_row / unit if objective is None else np.concatenate([objective, np.zeros(extra)])
        constraints = [LinearConstraint(matrix, low, high) for matrix, low, high in ties]
        if objective is not None and math.isfinite(allowed):
            constraints.append(LinearConstraint(csr_array(cost_row[None] / unit), -np.inf, (allowed - constant) / unit))
        scale = float(np.abs(row).max(initial=0.0)) or 1.0
        integral = np.concatenate([np.ones(self._count), np.zeros(extra)])
        answer = milp(
            row / scale, integrality=integral, bounds=(0, 1), constraints=constraints, options={"mip_rel_gap": 0.0}
        )
        return None if answer.x is None else self._read(answer.x)

    def _program(self) -> tuple[float, Floats, list[tuple[csr_array, Floats, Floats]]]:
        """The constant cost, the cost of each variable, and the constraints that tie them together."""
        cost = [np.zeros(self._count)]
        constant, columns = 0.0, self._count
        entries: list[tuple[int, int, float]] = []  # row, column, value
        right: list[float] = []
        for name, values in self._values.items():
            entries += [(len(right), self._first[name] + i, 1.0) for i in range(len(values))]
            right.append(1.0)
        for table in self._tables:
            if not table.choices:
                constant += float(table.costs)
            elif len(table.choices) == 1:
                first = self._first[table.choices[0]]
                cost[0][first : first + len(table.costs)] += table.costs
            else:
                numbers = np.arange(table.costs.size).reshape(table.costs.shape) + columns
                cost.append(table.costs.reshape(-1))
                columns += table.costs.size
                for axis, name in enumerate(table.choices):
                    for i in range(table.costs.shape[axis]):
                        entries += [(len(right), int(n), 1.0) for n in numbers.take(i, axis).reshape(-1)]
                        entries.append((len(right), self._first[name] + i, -1.0))
                        right.append(0.0)
        row = np.concatenate(cost)
        equal = np.array(right)
        ties = [(_matrix(entries, len(right), len(row)), equal, equal)]
        whole = [(branch.id, name) for branch in self._branches for name in branch.groups if name in self._values]
        if whole:  # the groups of a branch that is gone count as whole: they went with it
            pairs = [
                entry
                for number, (branch, name) in enumerate(whole)
                for entry in (
                    (number, self._first[name], 1.0),
                    (number, self._first[branch] + self._values[branch].index(GONE), -1.0),
                )
            ]
            zeros = np.zeros(len(whole))
            ties.append((_matrix(pairs, len(whole), len(row)), zeros, np.full(len(whole), np.inf)))
        return constant, row, ties

    def _read(self, x: Floats) -> Solution:
        places = {
            name: int(np.argmax(x[self._first[name] : self._first[name] + len(values)]))
            for name, values in self._values.items()
        }
        point = {name: self._values[name][place] for name, place in places.items()}
        gone = {layer for b in self._branches if point[b.id] == GONE for layer in b.layers}
        left = [layer for layer in self._structure.layers if layer.name not in gone]
        loss = sum(self._losses[name][place] for name, place in places.items())
        # Priced as everybody prices a model: the tables' sum may differ by rounding, and so exceed a budget it is.
        return Solution(point, loss, total(left, point, self._costs))


def _matrix(entries: Sequence[tuple[int, int, float]], rows: int, columns: int) -> csr_array:
    row, column, value = zip(*entries, strict=True)
    return csr_array(coo_array((value, (row, column)), shape=(rows, columns)))
