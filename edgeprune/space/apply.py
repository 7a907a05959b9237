"""Applying a subnet to a model, and a plan: base model + plan -> pruned model, checked against the masked one."""

from __future__ import annotations

import importlib.metadata

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.graph.trace import TRACE_ERRORS
from edgeprune.space.branches import branches_masked, remove_branches
from edgeprune.space.cut import chosen_units, remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.gates import removed_gates
from edgeprune.space.masks import mask_units
from edgeprune.space.plan import Dropped, Narrowed, Option, Plan
from edgeprune.space.subnet import Subnet
from edgeprune.space.trial import answers, difference, difference_in_double
from edgeprune.space.units import Structure


def apply(module: nn.Module, structure: Structure, subnet: Subnet) -> nn.Module:
    """A copy of a module without what a subnet takes out; the module itself is unchanged.

    Args:
        structure: what `find_structure` found in `module`.

    Raises:
        ModelError: the subnet does not fit the structure (see `remove_units`).
    """
    return remove_branches(remove_units(module, structure, subnet.units), structure, subnet.dropped)


def apply_but_gates(module: nn.Module, structure: Structure, subnet: Subnet) -> nn.Module:
    """As `apply`, but the gates that go are still there."""
    return apply(module, structure, subnet.without({gate.id for gate in removed_gates(structure, subnet.dropped)}))


def make_plan(source: str, module: nn.Module, structure: Structure, subnet: Subnet) -> Plan:
    """Write a subnet down: widths in the order of the structure's groups, then what goes as a whole.

    Args:
        source: the model spec's source, e.g. "timm:resnet18".
        module: the base model, unpruned.

    Raises:
        ModelError: see `remove_units`.
    """
    chosen = {group.id: units for group, units in chosen_units(structure, subnet.units)}
    decisions: dict[str, Option] = {
        group.id: Narrowed(size=group.size, removed=tuple(int(unit) for unit in chosen[group.id]))
        for group in structure.groups
        if group.id in chosen
    }
    gates = {branch.id for branch in structure.branches if branch.gate}
    decisions |= {name: Dropped(kind="gate" if name in gates else "branch") for name in subnet.dropped}
    parameters = count_parameters(module)
    return Plan(base=source, base_parameters=parameters, made_with=_packages(), decisions=decisions)


def apply_plan(module: nn.Module, plan: Plan, example: Tensor) -> nn.Module:
    """Prune a copy of a base model; the given module is unchanged, also on failure.

    Ends with a forward check: the pruned model must compute, at `example`, what the base model computes with the
    removed units masked (to the square root of the type's precision, relative to the largest output).

    Args:
        module: the base model.
        plan: made for this model.
        example: an input, shape (batch, channels, height, width).

    Raises:
        ModelError: the plan was made for another model (other parameter count, unknown group, other size), or the
            pruned model fails the forward check.
    """
    check_base(module, plan)
    if not plan.decisions:
        return remove_units(module, Structure((), (), ()), {})
    structure = find_structure(module, example)
    subnet = subnet_of(plan, structure)
    pruned = apply(module, structure, subnet)
    masked = mask_units(module, structure, subnet.units)
    with branches_masked(masked, structure, subnet.dropped):
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


def subnet_of(plan: Plan, structure: Structure) -> Subnet:
    """The subnet that a plan writes down, checked against the model that it is to be applied to.

    Raises:
        ModelError: the plan was made for another model.
    """
    sizes, branches = structure.sizes, {branch.id for branch in structure.branches}
    reasons = {entry.name: entry.reason for entry in structure.frozen}
    for name, option in plan.decisions.items():
        if isinstance(option, Dropped):
            if name not in branches:
                raise ModelError(
                    f"the plan's branch {name} is not in this model", where=plan.base, hint=_does_not_fit(plan)
                )
        elif name not in sizes:
            why = f"is frozen: {reasons[name]}" if name in reasons else "is not in this model"
            raise ModelError(f"the plan's group {name} {why}", where=plan.base, hint=_does_not_fit(plan))
        elif option.size != sizes[name]:
            raise ModelError(
                f"the plan says group {name} has {option.size} units, here it has {sizes[name]}",
                where=plan.base,
                hint=_does_not_fit(plan),
            )
    return plan.subnet


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
