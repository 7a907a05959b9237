"""Grouping: connected atoms become units, units that are alike become groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from edgeprune.graph.flow import Flow, Slots
from edgeprune.graph.labels import Components, Indices, Label, Mixed, Value, present_in
from edgeprune.graph.layers import LabelledLayer
from edgeprune.space.units import Frozen, Layer, Member, Structure, UnitGroup, Width

Noted = TypeVar("Noted", bound=str)


@dataclass(frozen=True, eq=False)
class _Owned:
    """What goes with each component: row i is index `index[i]` of slot `slot[i]`. The rows of a component follow each
    other, by slot and index: those of `components[j]` are `begin[j]`..`begin[j + 1]`."""

    components: Indices  # ascending
    begin: Indices
    slot: Indices
    index: Indices

    def slots_of(self, component: int) -> list[int]:
        """The slots that lose something with a component, ascending."""
        start, end = self._rows(component)
        return list(dict.fromkeys(self.slot[start:end].tolist()))

    def indices(self, components: Sequence[int]) -> dict[int, Indices]:
        """slot -> the indices (components, each) that go with each of some components of one pattern."""
        place = np.searchsorted(self.components, components)
        start, end = self._rows(components[0])
        table = self.index[self.begin[place][:, None] + np.arange(end - start)]
        slots, first = np.unique(self.slot[start:end], return_index=True)
        parts = (np.ascontiguousarray(part) for part in np.split(table, first[1:], axis=1))
        return dict(zip(slots.tolist(), parts, strict=True))

    def _rows(self, component: int) -> tuple[int, int]:
        place = int(np.searchsorted(self.components, component))
        return int(self.begin[place]), int(self.begin[place + 1])


@dataclass(frozen=True)
class Grouping:
    """A structure, and which components of atoms its units are."""

    structure: Structure
    components: Components
    units: dict[int, tuple[int, int]]  # component -> (group number, unit number)
    _widths: dict[bytes, Width] = field(default_factory=dict, compare=False)  # of dimensions that were asked for

    def groups_in(self, value: Value) -> set[int]:
        """The numbers of the groups whose units take something of a value along."""
        labels = (label for part in (value if isinstance(value, list) else [value]) for label in part)
        return {number for label in labels if label is not None for number in self._owning(label)}

    def _owning(self, label: Indices) -> list[int]:
        _, owners = self.components.owners_in(present_in(self.components.of[label], self.components.count))
        found = np.zeros(len(self.structure.groups) + 1, dtype=bool)
        found[self._group_of[owners]] = True  # the last: of no group
        numbers: list[int] = np.flatnonzero(found[:-1]).tolist()
        return numbers

    def atoms_of(self, number: int) -> Indices:
        """The atoms that are the units of a group themselves."""
        mine = [component for component, (group, _) in self.units.items() if group == number]
        return np.flatnonzero(np.isin(self.components.of, mine)).astype(np.int64)

    def kept(self, removed: dict[str, Indices]) -> Indices:
        """One number per atom, 1 where it stays when these units go, else 0."""
        gone = np.zeros(self.components.count, dtype=bool)
        chosen = {number: set(removed.get(group.id, np.empty(0)).tolist()) for number, group in self._numbered()}
        for component, (group, unit) in self.units.items():
            gone[component] = unit in chosen[group]
        position, owner = self.components.owners_in(np.arange(len(gone)))
        owned = np.zeros_like(gone)
        owned[position[gone[owner]]] = True
        return (~owned[self.components.of]).astype(np.int64)

    def width(self, label: Label, channels: int) -> Width:
        """The size of a dimension as a function of what is kept. `channels`: its size where it has no label."""
        if label is None:
            return Width(fixed=channels)
        present = self.components.of[label]
        key = present.tobytes()
        if key not in self._widths:
            self._widths[key] = self._width(present)
        return self._widths[key]

    def _width(self, present: Indices) -> Width:
        position, owner = self.components.owners_in(present)
        group = self._group_of[owner]
        groups = self.structure.groups
        owned = group >= 0
        twice = self._squares(position[owned], owner[owned], group[owned])
        pairs = np.unique((position * len(groups) + group)[owned])  # each group once at a position
        position, group = np.divmod(pairs, max(1, len(groups)))
        several = np.bincount(position, minlength=len(present))
        terms = []
        for many in np.unique(several[several > 0]).tolist():
            together = group[several[position] == many].reshape(-1, many)
            for numbers, count in zip(*_counted(together), strict=True):
                names = tuple(groups[n].id for n in numbers)
                if many == 1 and (squares := twice.get(numbers[0], 0)):
                    terms.append((names * 2, squares))
                    count -= squares * groups[numbers[0]].size ** 2  # noqa: PLW2901
                if times := count // math.prod(groups[n].size for n in numbers):
                    terms.append((names, times))
        return Width(int((several == 0).sum()), tuple(terms))

    def _squares(self, position: Indices, owner: Indices, group: Indices) -> dict[int, int]:
        """group -> how often every unit of it meets every unit of it, as where a matrix of products is flattened."""
        units, first = np.unique(position * self.components.count + owner, return_index=True)
        position, group = units // self.components.count, group[first]
        here = position * len(self.structure.groups) + group
        meeting = (np.bincount(here, minlength=1)[here] == 2) & (np.bincount(position, minlength=1)[position] == 2)
        found = {}
        for number in np.unique(group[meeting]).tolist():
            size = self.structure.groups[number].size
            pairs = int((meeting & (group == number)).sum()) // 2
            if size > 1 and pairs % (size * (size - 1)) == 0:  # without the places where a unit meets itself
                found[number] = pairs // (size * (size - 1))
        return found

    @cached_property
    def _group_of(self) -> Indices:
        """component -> number of the group whose unit it is, or -1."""
        numbers = np.full(self.components.count, -1, dtype=np.int64)
        for component, (group, _) in self.units.items():
            numbers[component] = group
        return numbers

    def _numbered(self) -> Iterator[tuple[int, UnitGroup]]:
        return enumerate(self.structure.groups)


def _counted(rows: Indices) -> tuple[list[list[int]], list[int]]:
    """The rows of a table, each once, and how often each is there."""
    found, times = np.unique(rows, axis=0, return_counts=True)
    return found.tolist(), times.tolist()


def group_units(flow: Flow, layers: list[LabelledLayer], told: Sequence[Indices] = ()) -> Grouping:
    """Components of coupled atoms with the same pattern are one group.

    The pattern of a component: how many indices of which dimensions of which tensors it takes along, how many
    channels of which layers, and how many of which sizes that the code is told (`told`, their labels).
    A pattern with a frozen component is frozen as a whole, so that ids and sizes
    do not depend on what else is kept.
    """
    components = flow.atoms.components()
    slots = [*_ordered_slots(flow), *flow.norms.values()]
    owned = _owned_indices(components, slots)
    sides = [label for layer in layers for label in (layer.in_label, layer.out_label)]
    patterns = _patterns(components, slots, owned, [*sides, *told])
    groups: list[UnitGroup] = []
    frozen: list[Frozen] = []
    names: dict[str, int] = defaultdict(int)
    roles, mixed = _noted(components, flow.atoms.roles), _noted(components, flow.mixed)
    units: dict[int, tuple[int, int]] = {}
    for members in patterns:
        name = _name(names, slots, owned, members, _roles(components, slots, owned, members[0], roles))
        reasons = [components.reason[c] for c in members if c in components.reason]
        if reasons:
            frozen.append(Frozen(name, len(members), reasons[0]))
            continue
        units |= {component: (len(groups), unit) for unit, component in enumerate(members)}
        ways = {way for component in members for way in mixed.get(component, ())}
        groups.append(_group(name, slots, owned, members, ways))
    structure = Structure(tuple(groups), (), tuple(frozen), standardized=tuple(flow.standardized))
    grouping = Grouping(structure, components, units)
    widths = tuple(
        Layer(
            layer.name,
            layer.operation,
            grouping.width(layer.in_label, layer.operation.in_channels),
            grouping.width(layer.out_label, layer.operation.out_channels),
        )
        for layer in layers
    )
    return replace(grouping, structure=replace(grouping.structure, layers=widths))


def _ordered_slots(flow: Flow) -> list[Slots]:
    """Slots in the order in which the graph uses their tensors."""
    order = {node: position for position, node in enumerate(flow.trace.graph.nodes)}
    first_use = {
        name: min((order[user] for user in node.users), default=len(order)) for node, name in flow.parameters.items()
    }
    return sorted(flow.slots.values(), key=lambda slot: first_use[slot.name])


def _owned_indices(components: Components, slots: list[Slots]) -> _Owned:
    """What goes with each component that a convolution or linear layer produces something of."""
    made = np.zeros(components.count, dtype=bool)
    rows: list[Indices] = []
    for number, slot in enumerate(slots):
        index, owner = components.owners_in(components.of[slot.atoms])
        made[owner] |= slot.producer
        rows.append(np.stack([owner, np.full_like(owner, number), index]))
    table = np.concatenate(rows, axis=1) if rows else np.empty((3, 0), dtype=np.int64)
    table = table[:, made[table[0]]]
    table = table[:, np.argsort(table[0], kind="stable")]  # by slot and index they are already
    present, begin = np.unique(table[0], return_index=True)
    return _Owned(present, np.append(begin, table.shape[1]), table[1], table[2])


def _patterns(components: Components, slots: list[Slots], owned: _Owned, sides: Sequence[Label]) -> list[list[int]]:
    """Components by pattern: patterns by their first producer, units by their first produced index."""
    widths = _widths(components, owned, sides)
    makes = np.array([slot.producer for slot in slots], dtype=bool)[owned.slot]
    first = np.flatnonzero(makes)[np.searchsorted(np.flatnonzero(makes), owned.begin[:-1])]  # each makes something
    order = np.lexsort((owned.index[first], owned.slot[first]))
    alike: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    begin = owned.begin.tolist()
    for place in order.tolist():
        pattern = owned.slot[begin[place] : begin[place + 1]].tobytes()  # a slot as often as it has indices
        alike[pattern, widths[place]].append(int(owned.components[place]))
    return list(alike.values())


def _widths(components: Components, owned: _Owned, sides: Sequence[Label]) -> list[bytes]:
    """For each component with something to go, how many channels of which sides it is."""
    rows: list[Indices] = []
    for number, label in enumerate(sides):
        if label is not None:
            _, owner = components.owners_in(components.of[label])
            present, count = np.unique(owner, return_counts=True)
            rows.append(np.stack([present, np.full_like(present, number), count]))
    table = np.concatenate(rows, axis=1) if rows else np.empty((3, 0), dtype=np.int64)
    table = table[:, np.argsort(table[0], kind="stable")]
    begin, end = (np.searchsorted(table[0], owned.components, side).tolist() for side in ("left", "right"))
    counts = np.ascontiguousarray(table[1:].T)
    return [counts[start:stop].tobytes() for start, stop in zip(begin, end, strict=True)]


def _name(
    names: dict[str, int],
    slots: list[Slots],
    owned: _Owned,
    members: list[int],
    roles: Collection[str],
) -> str:
    """ "<first producing layer>:out", or by its role in attention "<attention module>:heads"; numbered where a layer's
    channels fall into several groups."""
    slot = next(number for number in owned.slots_of(members[0]) if slots[number].producer)
    layer = slots[slot].name.removesuffix(".weight")
    name = f"{layer}:out"
    if roles:
        role = "heads" if "heads" in roles else "head_dims" if len(roles) > 1 else next(iter(roles))
        name = f"{layer.rpartition('.')[0]}:{role}"
    names[name] += 1
    return name if names[name] == 1 else f"{name}{names[name]}"


def _noted(components: Components, labelled: Iterable[tuple[Indices, Noted]]) -> dict[int, set[Noted]]:
    """component -> what rules have noted of labels that it is in."""
    noted: dict[int, set[Noted]] = defaultdict(set)
    for label, role in labelled:
        for component in present_in(components.of[label], components.count).tolist():
            for owner in components.owners_of(component):
                noted[owner].add(role)
    return noted


def _roles(
    components: Components,
    slots: list[Slots],
    owned: _Owned,
    component: int,
    noted: dict[int, set[str]],
) -> Collection[str]:
    """The roles of an axis; a layer's own channels are called after the layer."""
    slot = next(number for number in owned.slots_of(component) if slots[number].producer)
    return () if component in components.of[slots[slot].atoms] else noted.get(component, ())


def _group(name: str, slots: list[Slots], owned: _Owned, components: list[int], ways: Collection[Mixed]) -> UnitGroup:
    produced: list[Member] = []
    consumed: list[Member] = []
    normalized: list[Member] = []
    for number, indices in owned.indices(components).items():
        member = Member(slots[number].name, slots[number].dim, indices)
        kind = normalized if slots[number].statistics else consumed if slots[number].consumed else produced
        kind.append(member)
    mixed: Mixed | None = "contracted" if "contracted" in ways else next(iter(ways), None)
    span = min(_run(member.indices[0]) for member in (*produced, *consumed))
    return UnitGroup(name, len(components), tuple(produced), tuple(consumed), tuple(normalized), span=span, mixed=mixed)


def _run(indices: Indices) -> int:
    """The length of the first run of consecutive numbers."""
    breaks = np.flatnonzero(np.diff(indices) != 1)
    return int(breaks[0]) + 1 if len(breaks) else len(indices)
