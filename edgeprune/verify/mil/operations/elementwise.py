"""Element-wise arithmetic, comparison and casting."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeprune.verify.mil.registry import operation, refuse

_FLOATS = ("fp16", "fp32", "fp64")
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")


@operation("add")
def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@operation("sub")
def sub(x: Tensor, y: Tensor) -> Tensor:
    return x - y


@operation("mul")
def mul(x: Tensor, y: Tensor) -> Tensor:
    return x * y


@operation("real_div")
def real_div(x: Tensor, y: Tensor) -> Tensor:
    return x / y


@operation("floor_div")
def floor_div(x: Tensor, y: Tensor) -> Tensor:
    return torch.floor_divide(x, y)


@operation("pow")
def power(x: Tensor, y: Tensor) -> Tensor:
    return x.pow(y)


@operation("maximum")
def maximum(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)


@operation("minimum")
def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


@operation("equal")
def equal(x: Tensor, y: Tensor) -> Tensor:
    return x == y


@operation("greater")
def greater(x: Tensor, y: Tensor) -> Tensor:
    return x > y


@operation("greater_equal")
def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    return x >= y


@operation("less")
def less(x: Tensor, y: Tensor) -> Tensor:
    return x < y


@operation("less_equal")
def less_equal(x: Tensor, y: Tensor) -> Tensor:
    return x <= y


@operation("select")
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond.bool(), a, b)


@operation("abs")
def absolute(x: Tensor) -> Tensor:
    return x.abs()


@operation("exp")
def exp(x: Tensor) -> Tensor:
    return x.exp()


@operation("log")
def log(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return (x + (0.0 if epsilon is None else epsilon)).log()


@operation("sqrt")
def sqrt(x: Tensor) -> Tensor:
    return x.sqrt()


@operation("square")
def square(x: Tensor) -> Tensor:
    return x.square()


@operation("rsqrt")
def rsqrt(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return (x + (1e-12 if epsilon is None else epsilon)).rsqrt()


@operation("inverse")
def inverse(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return (x + (1e-4 if epsilon is None else epsilon)).reciprocal()


@operation("tanh")
def tanh(x: Tensor) -> Tensor:
    return x.tanh()


@operation("erf")
def erf(x: Tensor) -> Tensor:
    return x.erf()


@operation("clip")
def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return x.clamp(float(alpha), float(beta))


@operation("identity")
def identity(x: Tensor) -> Tensor:
    return x


@operation("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """Floats are cut off towards zero when they become integers; fp16 is rounded when the result is stored."""
    if dtype in _FLOATS:
        return x.float()
    if dtype in _INTEGERS:
        return x.long()
    if dtype == "bool":
        return x.bool()
    raise refuse("cast", f"dtype {dtype}")
