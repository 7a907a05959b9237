"""Calibration images: which, in what form."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeprune.errors import DataError


def calibration_images(images: Tensor, count: int | None = None) -> Tensor:
    """The images, or at most `count` of them, evenly spread over what was given (which may be sorted by class).

    `images` is (N, C, H, W) float32, preprocessed; the result is contiguous.

    Raises:
        DataError: no images, a wrong shape, or a value that is not finite.
    """
    if images.dim() != 4 or len(images) == 0:
        raise DataError(f"calibration images must be (N, C, H, W) with N > 0, not {tuple(images.shape)}")
    if not images.is_floating_point() or not bool(torch.isfinite(images).all()):
        raise DataError("calibration images must be finite float32 values, preprocessed as the model expects")
    chosen = torch.linspace(0, len(images) - 1, min(count or len(images), len(images))).round().long()
    return images.detach().to("cpu", torch.float32)[chosen].contiguous()
