"""Images as the model wants them before normalisation: uint8, channels first, resized and cropped."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgeprune.data.decode import decode
from edgeprune.errors import DataError

Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_MODES = {1: "L", 3: "RGB"}
_MOST_PIXELS = 1 << 28
_WORKERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Geometry:
    """From an image of any size to the model's: resize so that it just covers (H, W) / crop, then cut the centre.

    Rounding follows torchvision's Resize and CenterCrop, so for a square input the pixels are those
    of timm's evaluation transform.
    """

    channels: int
    height: int
    width: int
    cover_height: int
    cover_width: int
    interpolation: str

    @classmethod
    def of(
        cls, input_size: tuple[int, int, int], *, interpolation: str, crop_pct: float, resize: int | None = None
    ) -> Geometry:
        """The geometry of an input (C, H, W). `resize` sets the shorter side after resizing, else it is H / crop_pct.

        Raises:
            DataError: images cannot have so many channels, the interpolation is unknown, `resize` is below the input.
        """
        channels, height, width = input_size
        if channels not in _MODES:
            raise DataError(f"the model wants {channels} channels; images give 1 or 3", hint="use another data source")
        if interpolation not in _RESAMPLING:
            raise DataError(f"unknown interpolation {interpolation!r}", hint=f"one of {', '.join(_RESAMPLING)}")
        if resize is not None and resize < min(height, width):
            raise DataError(f"resize = {resize} is below the model's input {height}x{width}", hint="make it larger")
        share = min(height, width) / resize if resize is not None else crop_pct
        cover = [math.floor(side / share + 1e-6) for side in (height, width)]
        return cls(channels, height, width, cover[0], cover[1], interpolation)

    def apply(self, image: Image.Image) -> Bytes:
        """One image as uint8 (C, H, W)."""
        image = image.convert(_MODES[self.channels])
        width, height = self._resized(*image.size)
        if (width, height) != image.size:
            image = image.resize((width, height), _RESAMPLING[self.interpolation])
        left, top = round((width - self.width) / 2.0), round((height - self.height) / 2.0)
        if (left, top, width, height) != (0, 0, self.width, self.height):
            image = image.crop((left, top, left + self.width, top + self.height))
        pixels = np.asarray(image, np.uint8).reshape(self.height, self.width, self.channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def check(self, width: int, height: int) -> None:
        """Check that an image of this size can be resized.

        Raises:
            DataError: it is so long and thin that it would have hundreds of millions of pixels then.
        """
        if math.prod(self._resized(width, height)) > _MOST_PIXELS:
            raise DataError(
                f"the image is {width}x{height}: so long and thin that its centre is no picture of it",
                hint="remove it, or cut it to a shape that is nearer to the model's input",
            )

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Size that covers the box and keeps the shape: the side that would be short fits, the other rounds down."""
        if width * self.cover_height <= height * self.cover_width:
            return self.cover_width, max(self.cover_height, int(self.cover_width * height / width))
        return max(self.cover_width, int(self.cover_height * width / height)), self.cover_height


class Images(Protocol):
    """A pool of images of one size."""

    streams: bool  # they are read from disk at each use

    def __len__(self) -> int: ...

    def pixels(self, indices: Indices) -> Bytes:
        """uint8 (len(indices), C, H, W)."""
        ...


class ArrayImages:
    """Images that are in memory as the model takes them: uint8 (N, C, H, W)."""

    streams = False

    def __init__(self, pixels: Bytes) -> None:
        self._pixels = np.ascontiguousarray(pixels)

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, indices: Indices) -> Bytes:
        return self._pixels[indices]


def array_images(array: Bytes, geometry: Geometry, *, memory_limit: int) -> Images:
    """Images of an array uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3).

    Raises:
        DataError: they are so long and thin that they cannot be resized.
    """
    stack = array[..., None] if array.ndim == 3 else array
    geometry.check(stack.shape[2], stack.shape[1])
    same_box = (geometry.cover_height, geometry.cover_width) == (geometry.height, geometry.width)
    if same_box and stack.shape[1:] == (geometry.height, geometry.width, geometry.channels):
        return ArrayImages(stack.transpose(0, 3, 1, 2))

    def one(index: int) -> Image.Image:
        return Image.fromarray(stack[index, ..., 0] if stack.shape[-1] == 1 else stack[index])

    return DecodedImages(len(stack), one, lambda i: f"image {i}", geometry, memory_limit=memory_limit)


class DecodedImages:
    """Images decoded when first used: kept when the pool fits into `memory_limit` bytes, else read at each use.

    `open_one(i)` gives image i, upright and of mode L or RGB, and may be called from several threads; `name(i)` says
    which it is.
    """

    def __init__(
        self,
        count: int,
        open_one: Callable[[int], Image.Image],
        name: Callable[[int], str],
        geometry: Geometry,
        *,
        memory_limit: int,
        workers: int = _WORKERS,
    ) -> None:
        self._count, self._open, self._name, self._geometry, self._workers = count, open_one, name, geometry, workers
        shape = (count, geometry.channels, geometry.height, geometry.width)
        self.streams = math.prod(shape) > memory_limit
        self._kept = np.empty((0, *shape[1:]) if self.streams else shape, np.uint8)
        self._decoded = np.zeros(count, bool)

    def __len__(self) -> int:
        return self._count

    def pixels(self, indices: Indices) -> Bytes:
        """See `Images`.

        Raises:
            DataError: an image cannot be read (it is named).
        """
        if self.streams:
            return self._decode(indices)
        missing = np.unique(indices[~self._decoded[indices]])
        if len(missing):
            self._kept[missing] = self._decode(missing)
            self._decoded[missing] = True
        return self._kept[indices]

    def _decode(self, indices: Indices) -> Bytes:
        if len(indices) == 0:
            return np.empty((0, *self._kept.shape[1:]), np.uint8)
        with ThreadPoolExecutor(self._workers) as pool:
            return np.stack(list(pool.map(self._decode_one, indices.tolist())))

    def _decode_one(self, index: int) -> Bytes:
        try:
            return self._geometry.apply(self._open(index))
        except (DataError, OSError) as error:
            what = error.what if isinstance(error, DataError) else f"the image cannot be read: {error}"
            hint = "remove it or copy it again; a run that is begun again with --resume takes the data as they are then"
            raise DataError(what, where=self._name(index), hint=hint) from error


def file_images(paths: Sequence[Path], geometry: Geometry, *, memory_limit: int) -> DecodedImages:
    """Images from files (`check.check_files` looks at them beforehand). One that changes after this is no image of the
    data set any more."""
    files = _Files(tuple(paths))
    return DecodedImages(len(files.paths), files.open, files.name, geometry, memory_limit=memory_limit)


class _Files:
    """Opens files by their numbers, as they are now."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self.paths = paths
        self._states = [file_state(path) for path in paths]

    def name(self, number: int) -> str:
        return str(self.paths[number])

    def open(self, number: int) -> Image.Image:
        path = self.paths[number]
        data = path.read_bytes()
        if file_state(path) != self._states[number]:
            raise DataError("the file was changed while the data set is in use")
        return decode(data).image


def file_state(path: Path) -> tuple[int, int]:
    """What tells that a file was written to."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns
