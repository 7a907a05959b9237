"""Random crops and flips of a whole batch at once, on uint8."""

from __future__ import annotations

import torch

from edgeprune.errors import DataError
from edgeprune.recipe import Augment


def augmented(
    pixels: torch.Tensor, augment: Augment, generator: torch.Generator, maps: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Shift each image by up to an eighth of its side (its border is mirrored), then flip every second one or so.

    `pixels` has shape (N, C, H, W); the result is a new tensor of that shape. `maps`, (N, ..., k H, k W) for a whole k,
    lie on the images and are moved with them.

    Raises:
        DataError: maps of another size.
    """
    if augment == "none":
        return pixels, maps
    count, channels, height, width = pixels.shape
    rows = _shifted(count, height, generator)
    columns = _shifted(count, width, generator)
    if augment == "crop-flip":
        flip = torch.rand(count, generator=generator) < 0.5
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    image = torch.arange(count)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    moved = pixels[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
    return moved, None if maps is None else _moved(maps, rows, columns)


def _moved(maps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Maps whose rows and columns (or as many to each) come from the same places as those of their images."""
    size, (height, width) = (rows.shape[1], columns.shape[1]), maps.shape[-2:]
    if maps.ndim < 3 or height % size[0] or width % size[1]:
        raise DataError(
            f"targets of shape {tuple(maps.shape[1:])} cannot be moved with images of {size[1]}x{size[0]}",
            where="tune.augment",
            hint='set tune.augment = "none", or give targets of the images\' size or a whole multiple of it',
        )
    flat = maps.reshape(len(maps), -1, height, width)
    image = torch.arange(len(maps))[:, None, None, None]
    plane = torch.arange(flat.shape[1])[None, :, None, None]
    finer_rows, finer_columns = _finer(rows, height // size[0]), _finer(columns, width // size[1])
    return flat[image, plane, finer_rows[:, None, :, None], finer_columns[:, None, None, :]].reshape(maps.shape)


def _finer(places: torch.Tensor, times: int) -> torch.Tensor:
    """Source positions (N, side) for a side that is divided more finely: within a pixel in the direction in which its
    neighbours lie, mirrored or not."""
    if times == 1:
        return places
    ahead = torch.diff(places, append=2 * places[:, -1:] - places[:, -2:-1])
    behind = torch.diff(places, prepend=2 * places[:, :1] - places[:, 1:2])
    mirrored = (torch.where(ahead == 0, behind, ahead) < 0)[:, :, None]
    within = torch.arange(times)[None, None, :]
    return (places[:, :, None] * times + torch.where(mirrored, times - 1 - within, within)).flatten(1)


def _shifted(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Source positions along a side for each image, (count, side), mirrored at the border without repeating it."""
    most = side // 8
    shift = torch.randint(-most, most + 1, (count, 1), generator=generator)
    position = (torch.arange(side)[None, :] + shift).abs()
    return torch.where(position >= side, 2 * (side - 1) - position, position)
