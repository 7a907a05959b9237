"""Convolution, matrix products and normalization."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.verify.mil.operations.padding import resolve_padding
from edgeprune.verify.mil.registry import ints, operation, refuse


@operation("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Convolution of x (n, C_in, *spatial) with weight (C_out, C_in / groups, *kernel); 1 to 3 spatial dimensions."""
    spatial = x.ndim - 2
    steps, spread = ints(strides, [1] * spatial), ints(dilations, [1] * spatial)
    kernel = [(size - 1) * by + 1 for size, by in zip(weight.shape[2:], spread, strict=True)]
    before, after = resolve_padding(pad_type, ints(pad, [0] * 2 * spatial), list(x.shape[2:]), kernel, steps)
    if before != after:
        x, before = pad_spatial(x, before, after, 0.0), [0] * spatial
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    return convolve(x, weight, bias, steps, before, spread, 1 if groups is None else int(groups))


@operation("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Transposed convolution; weight is (C_in, C_out / groups, *kernel); padding cuts off the border."""
    if pad_type not in ("valid", "custom"):
        raise refuse("conv_transpose", f"pad_type {pad_type}")
    spatial = x.ndim - 2
    steps, spread = ints(strides, [1] * spatial), ints(dilations, [1] * spatial)
    transpose = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[spatial - 1]
    result = transpose(x, weight, bias, steps, 0, 0, 1 if groups is None else int(groups), spread)
    padding = ints(pad, [0] * 2 * spatial)
    for axis, (low, high) in enumerate(zip(padding[0::2], padding[1::2], strict=True), start=2):
        result = result.narrow(axis, low, result.shape[axis] - low - high)
    if output_shape is not None and ints(output_shape, [])[-spatial:] != list(result.shape[2:]):
        raise refuse("conv_transpose", f"output_shape {ints(output_shape, [])}, which is not what the kernel gives")
    return result


def pad_spatial(x: Tensor, before: list[int], after: list[int], value: float) -> Tensor:
    """Pad the spatial dimensions (torch wants the last one first)."""
    sizes = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return functional.pad(x, sizes, value=value)


@operation("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.linear(x, weight, bias)


@operation("matmul")
def matmul(x: Tensor, y: Tensor, transpose_x: Tensor | None = None, transpose_y: Tensor | None = None) -> Tensor:
    left = x.transpose(-1, -2) if transpose_x is not None and bool(transpose_x) else x
    right = y.transpose(-1, -2) if transpose_y is not None and bool(transpose_y) else y
    return left @ right


@operation("einsum")
def einsum(values: list[Tensor], equation: str) -> Tensor:
    return torch.einsum(equation, *values)


@operation("scaled_dot_product_attention")
def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask)


@operation("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-5 if epsilon is None else float(epsilon))


@operation("instance_norm")
def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Tensor | None = None
) -> Tensor:
    return functional.instance_norm(x, weight=gamma, bias=beta, eps=1e-5 if epsilon is None else float(epsilon))


@operation("layer_norm")
def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    """Normalization over `axes` (all when not given); gamma and beta have the sizes of these axes."""
    over = sorted(axis % x.ndim for axis in ints(axes, list(range(x.ndim))))
    variance, mean = torch.var_mean(x, dim=over, correction=0, keepdim=True)
    result = (x - mean) * (variance + (1e-5 if epsilon is None else float(epsilon))).rsqrt()
    shape = [x.shape[axis] if axis in over else 1 for axis in range(x.ndim)]
    if gamma is not None:
        result = result * gamma.reshape(shape)
    return result if beta is None else result + beta.reshape(shape)
