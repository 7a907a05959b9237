"""Flags of fused attention that must go off with query and key dimensions (see `graph/unfused.py`)."""

from __future__ import annotations

from torch import nn

from edgeprune.graph.flow import Flow, arguments
from edgeprune.graph.trace import module_path, operator_name
from edgeprune.graph.unfused import FLAG
from edgeprune.space.groups import Grouping
from edgeprune.space.units import Switch


def find_switches(flow: Flow, module: nn.Module, grouping: Grouping) -> tuple[Switch, ...]:
    """The flags of `module` that must be off once query and key dimensions are gone."""
    groups: dict[str, set[str]] = {}
    for node in flow.trace.graph.nodes:
        if node.op != "call_function" or operator_name(node) not in ("matmul", "bmm"):
            continue
        path = module_path(node)
        if getattr(module.get_submodule(path), FLAG, False) is True:
            summed = flow.labels(arguments(node)["self"])[-1:]
            names = {grouping.structure.groups[number].id for number in grouping.groups_in(summed)}
            groups.setdefault(path, set()).update(names)
    return tuple(Switch(path, FLAG, False, tuple(sorted(names))) for path, names in groups.items() if names)
