"""What is done to training images: shifts and flips of a whole batch at once, on uint8, and timm's stronger changes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from edgeprune.errors import DataError
from edgeprune.recipe import Augment

EVERYTHING = slice(None)


@dataclass(frozen=True)
class Stronger:
    """What is done beside shifts and flips.

    Args:
        randaugment: timm's words for it, "rand-m9-mstd0.5"; None for none.
        erasing: the share of images that a random rectangle of noise is put on.
        repeats: how often each image is in a batch, differently changed (Hoffer et al. 2020); an epoch has as many
            images as without, so fewer different ones.
    """

    randaugment: str | None = None
    erasing: float = 0.0
    repeats: int = 1

    def order(self, order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The order of an epoch's images, with repeated ones."""
        return order if self.repeats == 1 else np.repeat(order, self.repeats)[: len(order)]

    def changed(self, pixels: npt.NDArray[np.uint8], seeds: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Images uint8 (N, C, H, W) after RandAugment, each drawn from a seed of its own."""
        if self.randaugment is None:
            return pixels
        transform = _rand_augment(self.randaugment)
        with _own_random_numbers():
            return np.stack([_changed(one, transform, int(seed)) for one, seed in zip(pixels, seeds, strict=True)])

    def erased(self, images: torch.Tensor, seed: int) -> torch.Tensor:
        """Normalised images (N, C, H, W), some with a rectangle of noise on them, in place."""
        if not self.erasing:
            return images
        erase = _erasing(self.erasing)
        with _own_random_numbers(), torch.random.fork_rng(devices=[]):
            random.seed(seed)
            torch.manual_seed(seed)
            erased: torch.Tensor = erase(images)
        return erased


NOTHING_STRONGER = Stronger()


def augmented(
    pixels: torch.Tensor,
    augment: Augment,
    generator: torch.Generator,
    *,
    maps: torch.Tensor | None = None,
    of: int | None = None,
    part: slice = EVERYTHING,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Shift each image by up to an eighth of its side (its border is mirrored), then flip every second one or so.

    `pixels` has shape (N, C, H, W); the result is a new tensor of that shape. Where they are a `part` of a batch `of`
    so many, each image is changed as it would be there. `maps`, (N, ..., k H, k W) for a whole k, lie on the images
    and are moved with them.

    Raises:
        DataError: maps of another size.
    """
    if augment == "none":
        return pixels, maps
    count, channels, height, width = pixels.shape
    whole = count if of is None else of
    rows = _shifted(whole, height, generator)
    columns = _shifted(whole, width, generator)
    if augment == "crop-flip":
        flip = torch.rand(whole, generator=generator) < 0.5
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    rows, columns = rows[part], columns[part]
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


def _changed(image: npt.NDArray[np.uint8], transform: Any, seed: int) -> npt.NDArray[np.uint8]:
    random.seed(seed)
    np.random.seed(seed)
    grey = image.shape[0] == 1
    picture = Image.fromarray(image[0] if grey else image.transpose(1, 2, 0)).convert("RGB")
    changed = transform(picture).convert("L" if grey else "RGB")
    pixels = np.asarray(changed, np.uint8).reshape(*image.shape[1:], image.shape[0])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _rand_augment(words: str) -> Any:
    from edgeprune.models.timm_import import import_timm

    import_timm()
    from timm.data.auto_augment import rand_augment_transform

    return rand_augment_transform(words, {"translate_const": 0.1, "img_mean": (124, 116, 104)})


def _erasing(share: float) -> Any:
    from edgeprune.models.timm_import import import_timm

    import_timm()
    from timm.data.random_erasing import RandomErasing

    return RandomErasing(share, mode="pixel", device="cpu")


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Python's and numpy's global generators, which timm draws from, go on afterwards as if nothing was drawn."""
    kept, numpys = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(numpys)
