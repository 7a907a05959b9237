"""Reductions over axes (all axes when none are given)."""

from __future__ import annotations

from torch import Tensor

from edgeprune.verify.mil.registry import ints, operation


@operation("reduce_mean")
def reduce_mean(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.mean(_axes(x, axes), keepdim=_keep(keep_dims))


@operation("reduce_sum")
def reduce_sum(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.sum(_axes(x, axes), keepdim=_keep(keep_dims))


@operation("reduce_max")
def reduce_max(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.amax(_axes(x, axes), keepdim=_keep(keep_dims))


@operation("reduce_min")
def reduce_min(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.amin(_axes(x, axes), keepdim=_keep(keep_dims))


@operation("reduce_l2_norm")
def reduce_l2_norm(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.square().sum(_axes(x, axes), keepdim=_keep(keep_dims)).sqrt()


@operation("reduce_sum_square")
def reduce_sum_square(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.square().sum(_axes(x, axes), keepdim=_keep(keep_dims))


def _axes(x: Tensor, axes: Tensor | None) -> list[int]:
    return ints(axes, list(range(x.ndim)))


def _keep(keep_dims: Tensor | None) -> bool:
    return keep_dims is not None and bool(keep_dims)
