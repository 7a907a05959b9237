"""Random crops and flips of a whole batch at once, on uint8."""

from __future__ import annotations

from typing import Literal

import torch

Augment = Literal["none", "crop", "crop-flip"]


def augmented(pixels: torch.Tensor, augment: Augment, generator: torch.Generator) -> torch.Tensor:
    """Shift each image by up to an eighth of its side (its border is mirrored), then flip every second one or so.

    `pixels` has shape (N, C, H, W); the result is a new tensor of that shape.
    """
    if augment == "none":
        return pixels
    count, channels, height, width = pixels.shape
    rows = _shifted(count, height, generator)
    columns = _shifted(count, width, generator)
    if augment == "crop-flip":
        flip = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    image = torch.arange(count)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    return pixels[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _shifted(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Source positions along a side for each image, (count, side), mirrored at the border without repeating it."""
    most = side // 8
    shift = torch.randint(-most, most + 1, (count, 1), generator=generator)
    position = (torch.arange(side)[None, :] + shift).abs()
    return torch.where(position >= side, 2 * (side - 1) - position, position)
