"""A subnet: one option for each decision of a model. What is not named is as it was.

Decisions are named as they are found (`units.py`): a group of units by the layer that makes them, a residual branch or
a gate by its block. A further kind of decision is a further kind of option here, one line in `apply.py` and one in
`plan.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from edgeprune.space.units import Structure


@dataclass(frozen=True)
class Subnet:
    """What goes from a model.

    Args:
        units: group -> the units that go, ascending; at least one of each group stays.
        dropped: the branches and gates that go as a whole.
    """

    units: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything goes."""
        return bool(self.dropped) or any(len(units) for units in self.units.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subnet) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @cached_property
    def key(self) -> str:
        """A short digest: equal for equal subnets, whatever the order, in every process."""
        units = sorted((name, [int(unit) for unit in units]) for name, units in self.units.items() if len(units))
        content = json.dumps([units, sorted(self.dropped)])
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def kept(self, structure: Structure) -> dict[str, int]:
        """How many units of each group stay; of a group that goes with its branch, all."""
        return {group.id: group.size - len(self.units.get(group.id, ())) for group in structure.groups}

    def without(self, names: Collection[str]) -> Subnet:
        """The same, but these branches and gates are still there."""
        return Subnet(self.units, tuple(name for name in self.dropped if name not in names))

    def layers_gone(self, structure: Structure) -> frozenset[str]:
        """The layers, products and weights that went with their branch."""
        gone = (branch for branch in structure.branches if branch.id in self.dropped)
        return frozenset(name for branch in gone for name in (*branch.layers, *branch.counted))


WHOLE = Subnet()
