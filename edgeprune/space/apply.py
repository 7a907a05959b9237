"""Applying a plan: base model + plan -> pruned model, checked against the masked one."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.graph.trace import TRACE_ERRORS
from edgeprune.space.branches import branches_masked, remove_branches
from edgeprune.space.cut import chosen_units, remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.gates import removed_gates
from edgeprune.space.masks import mask_units
from edgeprune.space.plan import Plan, RemoveBranch, RemoveUnits
from edgeprune.space.trial import answers, difference, difference_in_double
from edgeprune.space.units import Structure

__all__ = [
    "apply_plan",
    "check_base",
    "make_plan",
    "remove_branches",
    "remove_but_gates",
    "remove_units",
    "removed_layers",
    "removed_units",
]


def remove_but_gates(
    module: nn.Module, structure: Structure, removed: Mapping[str, Sequence[int]], branches: Collection[str]
) -> nn.Module:
    """A copy of a module without these units and residual branches; of the gates named all are still there."""
    gates = {gate.id for gate in removed_gates(structure, branches)}
    narrow = remove_units(module, structure, removed)
    return remove_branches(narrow, structure, [name for name in branches if name not in gates])


def make_plan(
    source: str,
    module: nn.Module,
    structure: Structure,
    removed: Mapping[str, Sequence[int]],
    branches: Sequence[str] = (),
) -> Plan:
    """Write down which units go, in the order of the structure's groups, then which branches.

    Args:
        source: the model spec's source, e.g. "timm:resnet18".
        module: the base model, unpruned.
        removed: group id -> unit numbers.
        branches: ids of the branches that go.

    Raises:
        ModelError: see `remove_units`.
    """
    chosen = {group.id: units for group, units in chosen_units(structure, removed)}
    units = tuple(
        RemoveUnits(group=group.id, size=group.size, removed=tuple(int(u) for u in chosen[group.id]))
        for group in structure.groups
        if group.id in chosen
    )
    edits = (*units, *(RemoveBranch(branch=name) for name in branches))
    return Plan(base=source, base_parameters=count_parameters(module), made_with=_packages(), edits=edits)


def apply_plan(module: nn.Module, plan: Plan, example: Tensor) -> nn.Module:
    """Prune a copy of a base model; the given module is unchanged, also on failure.

    Ends with a forward check: the pruned model must compute, at `example`, what the base model computes with the
    removed units masked (to the square root of the type's precision, relative to the largest output).

    Args:
        module: the base model.
        plan: made for this model; several edits of one group count from what the earlier ones left.
        example: an input, shape (batch, channels, height, width).

    Raises:
        ModelError: the plan was made for another model (other parameter count, unknown group, other size), or the
            pruned model fails the forward check.
    """
    check_base(module, plan)
    if not plan.edits:
        return remove_units(module, Structure((), (), ()), {})
    structure = find_structure(module, example)
    removed = removed_units(plan, structure)
    branches = [edit.branch for edit in plan.edits if isinstance(edit, RemoveBranch)]
    pruned = remove_branches(remove_units(module, structure, removed), structure, branches)
    masked = mask_units(module, structure, removed)
    with branches_masked(masked, structure, branches):
        _check_forward(pruned, masked, example, plan.base)
    return pruned


def check_base(module: nn.Module, plan: Plan) -> None:
    """Check that a model is the size of the one that a plan was made for.

    Raises:
        ModelError: it is not.
    """
    count = count_parameters(module)
    if count != plan.base_parameters:
        raise ModelError(
            f"the plan was made for a model with {plan.base_parameters} parameters, this one has {count}",
            where=plan.base,
            hint=f"build the model as the plan's base says, unpruned{_changed_packages(plan)}",
        )


def count_parameters(module: nn.Module) -> int:
    """Elements of all parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def removed_units(plan: Plan, structure: Structure) -> dict[str, list[int]]:
    """Units of the base model that all edits together remove, by group.

    Raises:
        ModelError: the plan was made for another model.
    """
    sizes = structure.sizes
    reasons = {entry.name: entry.reason for entry in structure.frozen}
    left: dict[str, list[int]] = {}
    for edit in (edit for edit in plan.edits if isinstance(edit, RemoveUnits)):
        if edit.group not in sizes:
            why = f"is frozen: {reasons[edit.group]}" if edit.group in reasons else "is not in this model"
            raise ModelError(f"the plan's group {edit.group} {why}", where=plan.base, hint=_does_not_fit(plan))
        alive = left.setdefault(edit.group, list(range(sizes[edit.group])))
        if len(alive) != edit.size:
            raise ModelError(
                f"the plan says group {edit.group} has {edit.size} units, here it has {len(alive)}",
                where=plan.base,
                hint=_does_not_fit(plan),
            )
        gone = set(edit.removed)
        left[edit.group] = [unit for position, unit in enumerate(alive) if position not in gone]
    return {name: sorted(set(range(sizes[name])) - set(alive)) for name, alive in left.items()}


def removed_layers(plan: Plan, structure: Structure) -> frozenset[str]:
    """Names of the layers that go with a plan's residual branches.

    Raises:
        ModelError: the model has no such branch.
    """
    inside = {branch.id: branch.layers for branch in structure.branches}
    chosen = [edit.branch for edit in plan.edits if isinstance(edit, RemoveBranch)]
    if unknown := [name for name in chosen if name not in inside]:
        raise ModelError(
            f"the plan's branch {unknown[0]} is not in this model", where=plan.base, hint=_does_not_fit(plan)
        )
    return frozenset(name for branch in chosen for name in inside[branch])


def _does_not_fit(plan: Plan) -> str:
    return f"make the plan anew from this model{_changed_packages(plan)}"


def _changed_packages(plan: Plan) -> str:
    """ " (timm was 1.0.20, now it is 1.0.31)" where a plan was made with other versions."""
    now = _packages()
    changed = [
        f"{name} was {was}, now it is {now[name]}" for name, was in plan.made_with.items() if now.get(name, was) != was
    ]
    return f" ({'; '.join(changed)})" if changed else ""


def _packages() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("edgeprune", "timm", "torch")}


def _check_forward(pruned: nn.Module, masked: nn.Module, example: Tensor, base: str) -> None:
    expected = answers(masked, example)
    try:
        given = answers(pruned, example)
    except TRACE_ERRORS as error:
        raise ModelError(f"the pruned model does not run: {error}", where=base) from error
    if [t.shape for t in given] != [t.shape for t in expected]:
        shapes = f"{[tuple(t.shape) for t in given]} instead of {[tuple(t.shape) for t in expected]}"
        raise ModelError(f"the pruned model's output changed its shape: {shapes}", where=base)
    tolerance = max((torch.finfo(t.dtype).eps ** 0.5 for t in expected if t.is_floating_point()), default=0.0)
    gap = difference(given, expected)
    if not gap <= tolerance:  # deep nets blow single precision's rounding up
        gap = difference_in_double(pruned, masked, example)
    if not gap <= tolerance:
        raise ModelError(
            f"the pruned model differs from the masked one by {gap:.3g} of its output (allowed {tolerance:.3g})",
            where=base,
            hint="this is a defect in EdgePrune: please report the model; keep the layers it is in (recipe: keep)",
        )
