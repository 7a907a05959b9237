"""What can go from a model, and what cannot and why, as rows for people and machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from edgeprune.space.cut import tensor_named
from edgeprune.space.units import Structure, UnitGroup


@dataclass(frozen=True)
class GroupRow:
    """A group: how many units, and what one of them is worth while all the others stay."""

    id: str
    units: int
    parameters_per_unit: int
    macs_per_unit: int


@dataclass(frozen=True)
class BranchRow:
    """A residual branch that can go as a whole."""

    id: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Listing:
    """What was found in a model."""

    groups: tuple[GroupRow, ...]
    branches: tuple[BranchRow, ...]
    frozen: tuple[dict[str, Any], ...]  # name, units, reason
    parameters: int
    macs: int
    uncounted: tuple[str, ...]  # operators that may multiply, and count nothing


def list_units(module: nn.Module, structure: Structure) -> Listing:
    """List what `find_structure` found in a module."""
    sizes = structure.sizes
    layers = (*structure.layers, *structure.products)
    costs = {layer.name: layer.operation.macs for layer in layers}

    def macs_of(group: UnitGroup) -> int:
        less = {**sizes, group.id: group.size - 1}
        touched = (x for x in layers if group.id in (*x.in_width.groups, *x.out_width.groups))
        return round(sum(costs[layer.name] - layer.signature(less).macs for layer in touched))

    branches = tuple(
        BranchRow(
            branch.id,
            sum(
                p.numel() for name in (*branch.modules, branch.output) for p in module.get_submodule(name).parameters()
            ),
            round(sum(costs.get(name, 0) for name in (*branch.layers, *branch.counted))),
        )
        for branch in structure.branches
    )
    return Listing(
        groups=tuple(
            GroupRow(group.id, group.size, _parameters_of(module, group), macs_of(group)) for group in structure.groups
        ),
        branches=branches,
        frozen=tuple(asdict(entry) for entry in structure.frozen),
        parameters=sum(p.numel() for p in module.parameters()),
        macs=round(sum(costs.values())),
        uncounted=structure.uncounted,
    )


def _parameters_of(module: nn.Module, group: UnitGroup) -> int:
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    count = 0
    for member in (*group.produced, *group.consumed):
        if member.name in names:
            tensor = tensor_named(module, member.name)
            count += member.indices.shape[1] * tensor.numel() // tensor.shape[member.dim]
    return count
