"""How an operation is made known to the reference executor: one small function, called with the arguments by name.

Floats come as float32 tensors (half precision values included), integers as int64, booleans as bool, strings as str.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from edgeprune.errors import UsageError

Result = Tensor | tuple[Tensor, ...]
Function = TypeVar("Function", bound=Callable[..., Result])

_OPERATIONS: dict[str, Callable[..., Result]] = {}


def operation(*names: str) -> Callable[[Function], Function]:
    """Register a function as the meaning of MIL operations."""

    def register(function: Function) -> Function:
        for name in names:
            if name in _OPERATIONS:
                raise ValueError(f"the operation {name} is defined twice")
            _OPERATIONS[name] = function
        return function

    return register


def registered() -> Mapping[str, Callable[..., Result]]:
    """The operations that are registered so far; all of them once the package `operations` is imported."""
    return _OPERATIONS


def check_arguments(name: str, function: Callable[..., Result], arguments: dict[str, Any], *, where: str) -> None:
    """Refuse an argument that the executor would otherwise not honour.

    Raises:
        UsageError: an argument is unknown or missing.
    """
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise UsageError(
            f"the reference executor cannot call the Core ML operation `{name}`: {error}", where=where
        ) from error


def refuse(operation_name: str, what: str) -> UsageError:
    """The error of an operation whose setting is not implemented."""
    return UsageError(f"the reference executor does not know `{operation_name}` with {what}")


def ints(value: Tensor | None, default: list[int]) -> list[int]:
    """A constant vector of integers, or the default when the argument is not given."""
    return default if value is None else [int(v) for v in value.flatten().tolist()]
