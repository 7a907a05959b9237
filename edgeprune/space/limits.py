"""How far a model may be cut: which widths its groups may keep, and whether whole branches and gates may go."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeprune.space.units import Branch, Structure, UnitGroup


@dataclass(frozen=True)
class Limits:
    """How far a model may be cut."""

    granularity: int = 8  # kept widths are multiples of this (what the device's kernels like)
    minimum: int = 8  # no group is cut below this many channels
    branches: bool = True  # whether whole residual branches may go
    gates: bool = False  # and gates (squeeze-excitation)

    def droppable(self, structure: Structure) -> tuple[Branch, ...]:
        """The branches and gates that may go."""
        return tuple(b for b in structure.branches if (self.gates if b.gate else self.branches))


def allowed_widths(group: UnitGroup, limits: Limits) -> tuple[int, ...]:
    """Numbers of units a group may keep, descending from all: its channels come in multiples of the granularity,
    and are not fewer than the minimum."""
    step = limits.granularity // math.gcd(limits.granularity, group.span)
    floor = min(group.size, max(-(-limits.minimum // group.span), step))
    return (group.size, *(w for w in range((group.size - 1) // step * step, 0, -step) if w >= floor))
