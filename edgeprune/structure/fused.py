"""Fused attention takes its scale from the width of the queries: heads of fewer dimensions would be scaled otherwise.

timm's attention modules have a flag, `fused_attn`, and compute the same without it, with the scale they were made with.
So the structure is read with the flag off, and where query and key dimensions go it stays off.
"""

from __future__ import annotations

from torch import nn

from edgeprune.structure.graph import module_path, operator_name
from edgeprune.structure.groups import Grouping
from edgeprune.structure.propagation import Flow, arguments
from edgeprune.structure.sharing import copy_sharing_all
from edgeprune.structure.units import Switch

FLAG = "fused_attn"


def unfused(module: nn.Module) -> nn.Module:
    """The module with fused attention off: a copy with the module's own parameters, or itself where there is none."""
    if not any(getattr(part, FLAG, False) is True for part in module.modules()):
        return module
    plain = copy_sharing_all(module)
    for part in plain.modules():
        if getattr(part, FLAG, False) is True:
            setattr(part, FLAG, False)
    return plain


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
