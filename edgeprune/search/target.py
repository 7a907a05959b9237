"""Targets in the units of a cost: what a recipe's `0.5x`, `8ms` or `150MMACs` asks of the allocator."""

from __future__ import annotations

from edgeprune.errors import TargetError
from edgeprune.latency.cost import CostModel, MacsCost, ParameterCost, SizeCost
from edgeprune.recipe import Target

_SCALE = {"MMACs": 1e6, "GMACs": 1e9, "kparams": 1e3, "Mparams": 1e6, "KB": 1e3, "MB": 1e6}


def counted_cost(target: Target) -> tuple[CostModel, float]:
    """The cost model and budget of a target that is counted rather than measured (MACs, parameters, bytes)."""
    budget = target.value * _SCALE[target.unit]
    if target.unit in ("MMACs", "GMACs"):
        return MacsCost(), budget
    return (ParameterCost() if target.unit in ("kparams", "Mparams") else SizeCost()), budget


def check_counted(target: str, budget: float, now: float) -> None:
    """Check that a counted target asks for less than there is.

    Raises:
        TargetError: it does not.
    """
    if budget >= now:
        unit = Target.parse(target).unit
        there = Target(value=float(f"{now / _SCALE[unit]:.4g}"), unit=unit)
        raise TargetError(f"the target {target} is not below the model's {there}", hint="choose a target below that")


def latency_share(target: Target, original_s: float) -> float:
    """A latency target as a share of the original's latency.

    Raises:
        TargetError: the target is not faster than the model.
    """
    share = target.value if target.unit == "x" else target.value * {"ms": 1e-3, "us": 1e-6}[target.unit] / original_s
    if share >= 1:
        raise TargetError(
            f"the target {target} is not faster than the model, which takes {original_s * 1e3:.3f} ms on this device",
            hint="there is nothing to prune; choose a target below that",
        )
    return share
