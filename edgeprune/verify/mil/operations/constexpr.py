"""Compressed weights, and quantization at run time."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeprune.verify.mil.blobs import unpack_bits
from edgeprune.verify.mil.registry import ints, operation, refuse


@operation("constexpr_affine_dequantize")
def affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    """scale * (quantized - zero_point), with one scale, or one for each index along `axis`."""
    return (quantized_data.float() - _along(zero_point, quantized_data, axis).float()) * _along(
        scale, quantized_data, axis
    )


@operation("constexpr_blockwise_shift_scale")
def blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset), with one scale for each block of data; a block has data.shape / scale.shape elements."""
    shifted = data.float() if offset is None else data.float() - _spread(offset.float(), list(data.shape))
    return shifted * _spread(scale, list(data.shape))


@operation("constexpr_lut_to_dense")
def lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: Tensor | None = None
) -> Tensor:
    """Look each index up in a palette.

    iOS 16: `indices` are packed bytes for `shape`, `lut` has shape (palettes,). iOS 18: `indices` has the shape of the
    result and `lut` (*blocks, palettes, vector): each block of indices has a palette of its own.
    """
    if shape is not None:
        sizes = ints(shape, [])
        bits = (lut.numel() - 1).bit_length()
        places = unpack_bits(indices.to(torch.uint8).numpy(), bits, int(torch.tensor(sizes).prod()))
        return lut[torch.from_numpy(places).long()].reshape(sizes)
    if lut.shape[-1] != 1:
        raise refuse("constexpr_lut_to_dense", f"palettes of vectors (vector_axis {vector_axis})")
    blocks = list(lut.shape[:-2])
    number = _spread(torch.arange(lut[..., 0, 0].numel()).reshape(blocks), list(indices.shape))
    return lut.reshape(-1, lut.shape[-2])[number, indices]


@operation("constexpr_cast")
def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    if output_dtype not in ("fp16", "fp32"):
        raise refuse("constexpr_cast", f"output_dtype {output_dtype}")
    return source_val


@operation("quantize")
def quantize(
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    """clip(round(input / scale) + zero_point); halves are rounded to even."""
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[output_dtype]
    shift = 0 if zero_point is None else _along(zero_point, input, axis)
    return ((input / _along(scale, input, axis)).round() + shift).clamp(low, high).long()


@operation("dequantize")
def dequantize(
    input: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    """scale * (input - zero_point)."""
    shift = 0.0 if zero_point is None else _along(zero_point, input, axis).float()
    return (input.float() - shift) * _along(scale, input, axis)


def _along(value: Tensor, data: Tensor, axis: Tensor | None) -> Tensor:
    """A scalar as it is; a vector laid along an axis of the data."""
    if value.ndim == 0:
        return value
    if axis is None:
        return value.reshape([-1] + [1] * (data.ndim - 1)) if value.numel() > 1 else value.reshape(())
    place = int(axis) % data.ndim
    return value.reshape([-1 if dim == place else 1 for dim in range(data.ndim)])


def _spread(value: Tensor, shape: list[int]) -> Tensor:
    """Repeat each element over its block, so that the result has `shape`."""
    for axis, size in enumerate(shape):
        if size % value.shape[axis]:
            raise refuse("block-wise weights", f"{value.shape[axis]} blocks over {size} elements")
        value = value.repeat_interleave(size // value.shape[axis], axis)
    return value
