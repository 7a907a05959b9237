"""Calibration images: which, in what form."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.export import ExportedProgram

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


def samples_of(program: ExportedProgram, calibration: Tensor) -> list[tuple[Tensor, ...]]:
    """Calibration images (N, C, H, W), or several inputs in a row (N, 1, 1, numbers), as a program that was traced with
    batch 1 takes them: each of its inputs (1, ...).

    Raises:
        DataError: as `calibration_images`; or they do not fit the program.
    """
    images = calibration_images(calibration)
    shapes = [tuple(example.shape) for example in program.example_inputs[0]]
    if shapes == [(1, *images.shape[1:])]:
        return [(image,) for image in images.split(1)]
    sizes = [math.prod(shape) for shape in shapes]
    if tuple(images.shape[1:]) != (1, 1, sum(sizes)):
        raise DataError(f"calibration images are {tuple(images.shape)}, the program takes {shapes}")
    return [
        tuple(part.reshape(shape) for part, shape in zip(row.split(sizes), shapes, strict=True))
        for row in images.flatten(1)
    ]
