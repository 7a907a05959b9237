"""A pruned model with the plan that makes it, and the targets that need no device: counted, or only predicted."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.models.spec import Model
from edgeprune.search.constraints import Binding, binding
from edgeprune.search.measured import Attempt
from edgeprune.search.problem import Allocator, Chosen, Shares
from edgeprune.space.apply import apply, make_plan
from edgeprune.space.plan import Plan
from edgeprune.space.units import Structure


@dataclass(frozen=True)
class Pruned:
    """A pruned model with the plan that makes it from its base. `best` is the attempt that was chosen; None for a
    target that is not measured. Each attempt comes with the share that was predicted for it."""

    model: Model
    plan: Plan
    structure: Structure
    chosen: Chosen
    binding: Binding
    attempts: tuple[Attempt, ...] = ()
    best: Attempt | None = None


def prune_within(model: Model, allocator: Allocator, budget: float, shares: Shares) -> Pruned:
    """Prune to a budget of what the layers may cost: the first choice is the answer, true of what is counted and taken
    as true of what is only predicted.

    Raises:
        TargetError: the smallest model that is allowed costs more.
    """
    return pruned(model, allocator, allocator.within(budget), shares)


def pruned(
    model: Model,
    allocator: Allocator,
    chosen: Chosen,
    shares: Shares,
    attempts: tuple[Attempt, ...] = (),
    best: Attempt | None = None,
) -> Pruned:
    """The model of an allocator's choice, with its plan and what binds it."""
    structure, subnet = allocator.problem.structure, chosen.subnet
    plan = make_plan(model.spec.source, model.module, structure, subnet)
    narrow = model.with_module(apply(model.module, structure, subnet))
    return Pruned(narrow, plan, structure, chosen, binding(allocator, chosen, shares), attempts, best)
