"""Pooling over 1 to 3 spatial dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.verify.mil.operations.layers import pad_spatial
from edgeprune.verify.mil.operations.padding import resolve_padding
from edgeprune.verify.mil.registry import ints, operation

_MAX = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


@operation("max_pool")
def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    kernel, steps, before, after = _geometry(x, kernel_sizes, strides, pad_type, pad)
    if not _native(kernel, before, after):
        x, before = pad_spatial(x, before, after, -math.inf), [0] * len(kernel)
    pool = _MAX[len(kernel) - 1]
    return pool(x, kernel, steps, before, ceil_mode=ceil_mode is not None and bool(ceil_mode))


@operation("avg_pool")
def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    exclude_padding_from_average: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    """Average; padding counts as zeros unless it is excluded. `ceil_mode` is PyTorch's."""
    kernel, steps, before, after = _geometry(x, kernel_sizes, strides, pad_type, pad)
    exclude = exclude_padding_from_average is not None and bool(exclude_padding_from_average)
    ceil = ceil_mode is not None and bool(ceil_mode)
    pool = _AVERAGE[len(kernel) - 1]
    if _native(kernel, before, after):
        return pool(x, kernel, steps, before, ceil, not exclude)
    padded = pool(pad_spatial(x, before, after, 0.0), kernel, steps, ceil_mode=ceil)
    if not exclude:
        return padded
    share = pool(pad_spatial(torch.ones_like(x), before, after, 0.0), kernel, steps, ceil_mode=ceil)
    return padded / share


def _geometry(
    x: Tensor, kernel_sizes: Tensor, strides: Tensor | None, pad_type: str, pad: Tensor | None
) -> tuple[list[int], list[int], list[int], list[int]]:
    kernel = ints(kernel_sizes, [])
    steps = ints(strides, [1] * len(kernel))
    before, after = resolve_padding(pad_type, ints(pad, [0] * 2 * len(kernel)), list(x.shape[2:]), kernel, steps)
    return kernel, steps, before, after


def _native(kernel: list[int], before: list[int], after: list[int]) -> bool:
    """Whether torch's own padding can express it: symmetric, and at most half of the kernel."""
    return before == after and all(2 * low <= size for low, size in zip(before, kernel, strict=True))
