"""Grouping: connected atoms become units, units that are alike become groups."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from edgeprune.structure.labels import Components, Label, Value
from edgeprune.structure.layers import LabelledLayer
from edgeprune.structure.propagation import Flow, Slots
from edgeprune.structure.units import Frozen, Indices, Layer, Member, Structure, UnitGroup, Width


@dataclass(frozen=True)
class Grouping:
    """A structure and, for every atom, the unit it belongs to: (group number, unit number), -1 where frozen."""

    structure: Structure
    group_of: Indices
    unit_of: Indices

    def groups_in(self, value: Value) -> set[int]:
        """The numbers of the groups whose channels a value carries."""
        labels = [label for part in (value if isinstance(value, list) else [value]) for label in part]
        numbers = {int(n) for label in labels if label is not None for n in np.unique(self.group_of[label])}
        return numbers - {-1}

    def kept(self, removed: dict[str, Indices]) -> Indices:
        """One bool per atom: whether it stays when these units go."""
        keep = np.ones(len(self.group_of), dtype=np.int64)
        for number, group in enumerate(self.structure.groups):
            gone = removed.get(group.id)
            if gone is not None:
                keep[(self.group_of == number) & np.isin(self.unit_of, gone)] = 0
        return keep


def group_units(flow: Flow, layers: list[LabelledLayer]) -> Grouping:
    """Components of coupled atoms with the same pattern are one group.

    The pattern of a component: how many indices of which dimensions of which tensors it owns, and how many
    channels of which layers. A pattern with a frozen component is frozen as a whole, so that ids and sizes
    do not depend on what else is kept.
    """
    components = flow.atoms.components()
    slots = _ordered_slots(flow)
    owned = _owned_indices(components, slots)
    patterns = _patterns(components, slots, owned, layers)
    group_of = np.full(flow.atoms.count, -1, dtype=np.int64)
    unit_of = np.full(flow.atoms.count, -1, dtype=np.int64)
    groups: list[UnitGroup] = []
    frozen: list[Frozen] = []
    names: dict[str, int] = defaultdict(int)
    number_of: dict[int, tuple[int, int]] = {}
    for members in patterns:
        name = _name(names, slots, owned, members)
        reasons = [components.reason[c] for c in members if c in components.reason]
        if reasons:
            frozen.append(Frozen(name, len(members), reasons[0]))
            continue
        number_of |= {component: (len(groups), unit) for unit, component in enumerate(members)}
        groups.append(_group(name, slots, owned, members))
    for atom, component in enumerate(components.of.tolist()):
        if component in number_of:
            group_of[atom], unit_of[atom] = number_of[component]
    ids = [group.id for group in groups]
    sizes = [group.size for group in groups]
    widths = tuple(
        Layer(
            layer.name,
            layer.operation,
            _width(layer.in_label, layer.operation.in_channels, group_of, ids, sizes),
            _width(layer.out_label, layer.operation.out_channels, group_of, ids, sizes),
        )
        for layer in layers
    )
    return Grouping(Structure(tuple(groups), widths, tuple(frozen)), group_of, unit_of)


def _ordered_slots(flow: Flow) -> list[Slots]:
    """Slots in the order in which the graph uses their tensors."""
    order = {node: position for position, node in enumerate(flow.program.graph.nodes)}
    first_use = {
        name: min((order[user] for user in node.users), default=len(order)) for node, name in flow.parameters.items()
    }
    return sorted(flow.slots.values(), key=lambda slot: first_use[slot.name])


def _owned_indices(components: Components, slots: list[Slots]) -> dict[int, dict[int, list[int]]]:
    """component -> slot number -> indices, for the components that a convolution or linear layer produces."""
    produced = np.zeros(len(components.of), dtype=bool)
    for slot in slots:
        if slot.producer:
            produced[components.of[slot.atoms]] = True
    owned: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, slot in enumerate(slots):
        of = components.of[slot.atoms]
        for index in np.flatnonzero(produced[of]).tolist():
            owned[int(of[index])][number].append(index)
    return owned


def _patterns(
    components: Components,
    slots: list[Slots],
    owned: dict[int, dict[int, list[int]]],
    layers: list[LabelledLayer],
) -> list[list[int]]:
    """Components by pattern: patterns by their first producer, units by their first produced index."""
    widths: dict[int, list[tuple[int, int]]] = defaultdict(list)
    sides = [label for layer in layers for label in (layer.in_label, layer.out_label)]
    for number, label in enumerate(sides):
        if label is not None:
            present, counts = np.unique(components.of[label], return_counts=True)
            for component, count in zip(present.tolist(), counts.tolist(), strict=True):
                widths[component].append((number, count))
    first: dict[int, tuple[int, int]] = {}
    alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for component, members in owned.items():
        slot = next(number for number in sorted(members) if slots[number].producer)
        first[component] = (slot, members[slot][0])
        pattern = tuple((number, len(indices)) for number, indices in sorted(members.items()))
        alike[pattern, tuple(widths[component])].append(component)
    patterns = [sorted(members, key=first.__getitem__) for members in alike.values()]
    return sorted(patterns, key=lambda members: first[members[0]])


def _name(names: dict[str, int], slots: list[Slots], owned: dict[int, dict[int, list[int]]], members: list[int]) -> str:
    """ "<first producing layer>:out", numbered where a layer's channels fall into several groups."""
    slot = next(number for number in sorted(owned[members[0]]) if slots[number].producer)
    layer = slots[slot].name.removesuffix(".weight")
    names[layer] += 1
    return f"{layer}:out" if names[layer] == 1 else f"{layer}:out{names[layer]}"


def _group(name: str, slots: list[Slots], owned: dict[int, dict[int, list[int]]], components: list[int]) -> UnitGroup:
    produced: list[Member] = []
    consumed: list[Member] = []
    for number in sorted(owned[components[0]]):
        indices = np.array([owned[c][number] for c in components], dtype=np.int64)
        member = Member(slots[number].name, slots[number].dim, indices)
        (consumed if slots[number].consumed else produced).append(member)
    return UnitGroup(name, len(components), tuple(produced), tuple(consumed))


def _width(label: Label, channels: int, group_of: Indices, ids: list[str], sizes: list[int]) -> Width:
    if label is None:
        return Width(fixed=channels)
    numbers, counts = np.unique(group_of[label], return_counts=True)
    found = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    fixed = found.pop(-1, 0)
    return Width(fixed, tuple((ids[number], count // sizes[number]) for number, count in found.items()))
