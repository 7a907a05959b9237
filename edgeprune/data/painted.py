"""Masks painted from the regions of annotated objects: polygons and run lengths (RLE), by pycocotools."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune.data.check import Checked
from edgeprune.data.images import Geometry, Indices
from edgeprune.data.listed import Given
from edgeprune.data.pools import Opening
from edgeprune.data.targets import cut_mask
from edgeprune.errors import DataError, ToolkitMissing

BACKGROUND = "background"  # number 0
IGNORED = 255  # the number of a mask's pixels that count nowhere
_MOST_CATEGORIES = IGNORED - 1  # beside the background
_SHAPES = "a segmentation is a list of polygons [x, y, x, y, ...] of three points or more, or RLE of the image's size"
Mask = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """The region of an object: polygons [[x, y, x, y, ...], ...], or run lengths {"size", "counts"}; crowds are regions
    of many objects."""

    number: int  # of its category, from 1 in the order of their ids
    region: Any
    crowd: bool
    where: str


@dataclass(frozen=True)
class Picture:
    """An image and its objects."""

    name: str
    width: int
    height: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Painted:
    """Masks painted from the objects' regions.

    Args:
        path: of the file that lists them.
        pictures: in the order of the pool.
        categories: their names, in the order of their numbers.
    """

    path: Path
    pictures: tuple[Picture, ...]
    categories: tuple[str, ...]

    def files(self) -> Sequence[Path]:
        return ()

    def open(self, images: Sequence[Path], checked: Sequence[Checked] | None, opening: Opening) -> Given:
        if len(self.categories) > _MOST_CATEGORIES:
            raise DataError(
                f"a mask tells {_MOST_CATEGORIES} categories apart, and the file has {len(self.categories)}",
                where=str(self.path),
                hint="give masks as files (a folder, or csv:FILE), or fewer categories",
            )
        numbers: dict[int, str] = {}
        for place, (path, one) in enumerate(zip(images, checked or (), strict=False)):
            picture = self.pictures[place]
            if (one.width, one.height) != (picture.width, picture.height):
                raise DataError(
                    f"the image is {one.width}x{one.height}, and {self.path.name} says "
                    f"{picture.width}x{picture.height}",
                    where=str(path),
                    hint="annotate the image as it is (upright, as its EXIF orientation says)",
                )
            for number in np.unique(painted(picture, self.path)).tolist():
                numbers.setdefault(number, str(path))
            opening.progress.update(f"masks of {self.path.name}", place + 1, len(images))
        targets = PaintedTargets(self.path, self.pictures, opening.geometry, numbers)
        return Given(np.zeros(len(images), np.int64), (BACKGROUND, *self.categories), targets=targets)


@dataclass(frozen=True)
class PaintedTargets:
    """Masks painted at each use, and cut as their images are."""

    path: Path
    pictures: tuple[Picture, ...]
    geometry: Geometry
    numbers: Mapping[int, str] = field(default_factory=dict)

    def of(self, indices: Indices) -> Tensor:
        masks = [cut_mask(painted(self.pictures[i], self.path), self.geometry) for i in indices.tolist()]
        return torch.from_numpy(np.stack(masks))


def painted(picture: Picture, path: Path) -> Mask:
    """The mask of an image, int64 (height, width): 0 where there is no object, else the number of its category. Crowds
    are painted first, as `IGNORED`, then objects from the largest to the smallest, so that none is hidden.

    Raises:
        DataError: a region is none.
        ToolkitMissing: pycocotools is not installed.
    """
    if picture.width < 1 or picture.height < 1:
        raise DataError(f"{picture.name} is {picture.width}x{picture.height}", where=str(path))
    mask = np.zeros((picture.height, picture.width), np.int64)
    regions = [(shape, _region(shape, picture, path)) for shape in picture.shapes]
    order = sorted(regions, key=lambda one: (not one[0].crowd, -int(one[1].sum())))  # equal ones as they are listed
    for shape, region in order:
        mask[region] = IGNORED if shape.crowd else shape.number
    return mask


def _region(shape: Shape, picture: Picture, path: Path) -> npt.NDArray[np.bool_]:
    """The pixels (height, width) of an object."""
    painter, size = painter_of(path), (picture.height, picture.width)
    if isinstance(shape.region, dict):
        encoded = painter.frPyObjects({"size": list(size), "counts": _runs(shape, size)}, *size)
    else:
        encoded = painter.merge(painter.frPyObjects(_polygons(shape, size), *size))
    return np.asarray(painter.decode(encoded), bool)


def _polygons(shape: Shape, size: tuple[int, int]) -> list[list[float]]:
    """Polygons that can be painted: what is outside of the image by more than its size would take memory without end.

    Raises:
        DataError: they are none.
    """
    polygons = shape.region
    if not isinstance(polygons, list) or not polygons:
        raise DataError("the object has no region", where=shape.where, hint=_SHAPES)
    height, width = size
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise DataError("a polygon has no three points", where=shape.where, hint=_SHAPES)
        for place, number in enumerate(polygon):
            most = height if place % 2 else width
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise DataError(f"a polygon holds {str(number)[:50]!r}", where=shape.where, hint=_SHAPES)
            if not -most <= number <= 2 * most:
                raise DataError(
                    f"a polygon goes to {number}, far outside of its image of {width}x{height}",
                    where=shape.where,
                    hint="coordinates are in pixels of the image: x, y, x, y, ...",
                )
    return polygons


def _runs(shape: Shape, size: tuple[int, int]) -> list[int]:
    """Run lengths of the image's size, from numbers or from COCO's text of them.

    Raises:
        DataError: they are not. (pycocotools takes what is missing from memory that was never written.)
    """
    counts, of = shape.region.get("counts"), shape.region.get("size")
    if of != list(size):
        raise DataError(f"the run lengths are of an image of {of}, not {list(size)}", where=shape.where, hint=_SHAPES)
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in runs):
        raise DataError("the run lengths are neither numbers nor a text of them", where=shape.where, hint=_SHAPES)
    if sum(runs) != size[0] * size[1]:
        raise DataError(
            f"the run lengths are of {sum(runs)} pixels, the image has {size[0] * size[1]}",
            where=shape.where,
            hint=_SHAPES,
        )
    return runs


def _unpacked(text: str) -> list[int] | None:
    """The numbers in COCO's text: five bits a character from "0", the lowest first, 32 for more to come; from the
    fourth number on, what it is more than that two before it. None where it is no such text."""
    runs: list[int] = []
    number = bits = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 60:
            return None
        number |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << bits
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = bits = 0
    return runs if bits == 0 else None


def painter_of(path: Path) -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ToolkitMissing(
            f"masks of a COCO file need pycocotools: {error}", where=str(path), hint="pip install 'edgeprune[coco]'"
        ) from error
    return mask
