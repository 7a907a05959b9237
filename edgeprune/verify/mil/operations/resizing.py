"""Resizing of images; only the sampling rules that PyTorch's interpolate has."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from edgeprune.verify.mil.registry import operation, refuse


@operation("upsample_nearest_neighbor")
def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: Tensor | None = None, scale_factor_width: Tensor | None = None
) -> Tensor:
    size = _size(x, scale_factor_height, scale_factor_width)
    return functional.interpolate(x, size=size, mode="nearest")


@operation("resize_nearest_neighbor")
def resize_nearest_neighbor(x: Tensor, target_size_height: Tensor, target_size_width: Tensor) -> Tensor:
    size = (int(target_size_height), int(target_size_width))
    if size[0] % x.shape[-2] or size[1] % x.shape[-1]:
        raise refuse("resize_nearest_neighbor", "a target that is not a multiple of the input")
    return functional.interpolate(x, size=size, mode="nearest")


@operation("upsample_bilinear")
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor | None = None,
    scale_factor_width: Tensor | None = None,
    align_corners: Tensor | None = None,
    half_pixel_centers: Tensor | None = None,
) -> Tensor:
    aligned = align_corners is None or bool(align_corners)
    centered = not aligned if half_pixel_centers is None else bool(half_pixel_centers)
    if aligned == centered:
        raise refuse("upsample_bilinear", f"align_corners={aligned} and half_pixel_centers={centered}")
    size = _size(x, scale_factor_height, scale_factor_width)
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=aligned)


@operation("resize_bilinear")
def resize_bilinear(
    x: Tensor, target_size_height: Tensor, target_size_width: Tensor, sampling_mode: str = "DEFAULT"
) -> Tensor:
    if sampling_mode not in ("STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS"):
        raise refuse("resize_bilinear", f"sampling_mode {sampling_mode}")
    size = (int(target_size_height), int(target_size_width))
    aligned = sampling_mode == "STRICT_ALIGN_CORNERS"
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=aligned)


def _size(x: Tensor, height: Tensor | None, width: Tensor | None) -> tuple[int, int]:
    scales = (1.0 if height is None else float(height), 1.0 if width is None else float(width))
    if any(scale != int(scale) for scale in scales):
        raise refuse("upsampling", f"the fractional factors {scales}")
    return x.shape[-2] * int(scales[0]), x.shape[-1] * int(scales[1])
