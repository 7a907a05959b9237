"""The operations that the reference executor knows. Importing this package registers every one."""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.errors import UsageError
from edgeprune.verify.mil.operations import (
    activations,
    constexpr,
    elementwise,
    layers,
    pooling,
    reductions,
    resizing,
    shapes,
)
from edgeprune.verify.mil.registry import Result, registered

__all__ = [
    "activations",
    "constexpr",
    "elementwise",
    "find_operation",
    "known_operations",
    "layers",
    "pooling",
    "reductions",
    "resizing",
    "shapes",
]


def find_operation(name: str, *, where: str) -> Callable[..., Result]:
    """The function of an operation.

    Raises:
        UsageError: the executor does not know it.
    """
    if name not in registered():
        raise UsageError(
            f"the reference executor does not know the Core ML operation `{name}`",
            where=where,
            hint="leave coreml out of [export] formats, or add the operation to edgeprune/verify/mil/operations",
        )
    return registered()[name]


def known_operations() -> tuple[str, ...]:
    """Names of all operations, sorted."""
    return tuple(sorted(registered()))
