"""The search space: the decisions of a model, each with its options, within the limits that a recipe sets.

A point of the space is one option for each decision: how much of it stays. Which units those are is the method's word
(`ranking.py`), and makes a point a subnet (`subnet.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from edgeprune.space.ranking import Ranking, gone_of
from edgeprune.space.subnet import Subnet
from edgeprune.space.units import Branch, Structure, UnitGroup

KEPT, GONE = 1, 0  # the options of a branch or a gate
Point = Mapping[str, int]  # decision -> how much of it stays; what is not named stays whole


@dataclass(frozen=True)
class Decision:
    """One thing about a model that can be chosen.

    `options`: how much of it may stay, all of it first and then ever less: of a width its units, of a branch or a gate
    `KEPT` or `GONE`.
    """

    id: str
    kind: Literal["width", "branch", "gate"]
    options: tuple[int, ...]


@dataclass(frozen=True)
class Limits:
    """How far a model may be cut."""

    granularity: int = 8  # kept widths are multiples of this (what the device's kernels like)
    minimum: int = 8  # no group is cut below this many channels
    branches: bool = True  # whether whole residual branches may go
    gates: bool = False  # and gates (squeeze-excitation)


@dataclass(frozen=True)
class Space:
    """The decisions of a model that `limits` leave open."""

    structure: Structure
    limits: Limits

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """Every width in the order of the groups (of one option where it stays), then what may go as a whole."""
        widths = (Decision(name, "width", options) for name, options in self.widths.items())
        branches = (Decision(b.id, "gate" if b.gate else "branch", (KEPT, GONE)) for b in self.droppable)
        return (*widths, *branches)

    @cached_property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """Group -> the numbers of units that it may keep, descending from all."""
        return {group.id: allowed_widths(group, self.limits) for group in self.structure.groups}

    @cached_property
    def droppable(self) -> tuple[Branch, ...]:
        """The branches and gates that may go."""
        limits = self.limits
        return tuple(b for b in self.structure.branches if (limits.gates if b.gate else limits.branches))

    def finer(self, granularity: int | None) -> Space:
        """The same with widths of another multiple; itself where none is given."""
        return self if granularity is None else Space(self.structure, replace(self.limits, granularity=granularity))

    def subnet(self, point: Point, ranking: Ranking) -> Subnet:
        """The subnet of a point, with the units that a method would take. Groups of a branch that is gone lose none:
        it goes with all of them."""
        gone = [branch for branch in self.structure.branches if point.get(branch.id, KEPT) == GONE]
        inside = {name for branch in gone for name in branch.groups}
        kept = {g.id: point[g.id] for g in self.structure.groups if g.id in point and g.id not in inside}
        return Subnet(gone_of(ranking, kept), tuple(branch.id for branch in gone))

    @cached_property
    def least(self) -> dict[str, int]:
        """The point with least of everything."""
        return {decision.id: decision.options[-1] for decision in self.decisions}


def allowed_widths(group: UnitGroup, limits: Limits) -> tuple[int, ...]:
    """Numbers of units a group may keep, descending from all: its channels come in multiples of the granularity,
    and are not fewer than the minimum."""
    step = limits.granularity // math.gcd(limits.granularity, group.span)
    floor = min(group.size, max(-(-limits.minimum // group.span), step))
    return (group.size, *(w for w in range((group.size - 1) // step * step, 0, -step) if w >= floor))
