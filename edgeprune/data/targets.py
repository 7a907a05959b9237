"""What a data set gives beside its images where that is no class: masks, numbers, a switch for each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from edgeprune.data.decode import raw_numbers
from edgeprune.data.images import Geometry, Indices, file_state
from edgeprune.errors import DataError

Array = npt.NDArray[Any]
MOST_NUMBER = 0xFFFF  # of a class in a mask


class TargetSource(Protocol):
    """Targets of a pool's images, by their places in it."""

    def of(self, indices: Indices) -> Tensor:
        """The targets, (n, ...).

        Raises:
            DataError: one cannot be read.
        """
        ...

    @property
    def numbers(self) -> Mapping[int, str]:
        """The class numbers that masks hold, each with a mask that holds it; none of other targets, and of masks that
        were looked at when the run was loaded."""
        ...


@dataclass(frozen=True)
class ArrayTargets:
    """Targets that are in memory as the task reads them."""

    values: Array
    numbers: Mapping[int, str] = field(default_factory=dict)

    def of(self, indices: Indices) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.values[indices]))


@dataclass(frozen=True)
class FileTargets:
    """Targets read from a file each, at each use. A file that changes meanwhile is no target of the data set any more.

    Args:
        files: beside the images of the pool.
        geometry: how a mask is cut as its image is; None: numbers stay as they are.
        states: of the files, when they were found.
        numbers: that the masks hold.
    """

    files: tuple[Path, ...]
    geometry: Geometry | None
    states: tuple[tuple[int, int], ...]
    numbers: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def found(cls, files: tuple[Path, ...], geometry: Geometry | None) -> FileTargets:
        """These files as they are now.

        Raises:
            DataError: one is not there.
        """
        return cls(files, geometry, tuple(_state(file) for file in files))

    def _read(self, index: int) -> Array:
        file = self.files[index]
        if _state(file) != self.states[index]:
            raise DataError(
                "the file was changed while the data set is in use",
                where=str(file),
                hint="a run that is begun again with --resume takes the data as they are then",
            )
        return read_target(file, self.geometry)

    def of(self, indices: Indices) -> Tensor:
        values = [self._read(index) for index in indices.tolist()]
        shapes = {value.shape for value in values}
        if len(shapes) > 1:
            raise DataError(
                f"targets have several shapes: {', '.join(map(str, sorted(shapes)))}",
                where=str(self.files[int(indices[0])].parent),
                hint="give all targets one shape",
            )
        return torch.from_numpy(np.stack(values))


def mask_targets(masks: Array, sizes: tuple[int, int], geometry: Geometry, where: str) -> ArrayTargets:
    """Masks of an array (N, H, W), resized and cut as the images of the same size (height, width) are.

    Raises:
        DataError: they are no whole numbers, or of another size than the images.
    """
    if masks.ndim == 4 and masks.shape[-1] == 1:
        masks = masks[..., 0]
    if masks.dtype.kind not in "iub" or masks.ndim != 3 or masks.shape[1:] != sizes:
        raise DataError(
            f"the masks are {masks.dtype} of shape {masks.shape}, the images {sizes[1]}x{sizes[0]}",
            where=where,
            hint="give each pixel of each image the number of its class: whole numbers (N, height, width)",
        )
    numbers: dict[int, str] = {}
    for place, mask in enumerate(masks):
        for number in numbers_in(mask, f"{where}, mask {place}"):
            numbers.setdefault(number, f"{where}, mask {place}")
    return ArrayTargets(np.stack([cut_mask(mask.astype(np.int64), geometry) for mask in masks]), numbers)


def numbers_in(mask: Array, where: str) -> list[int]:
    """The class numbers of a mask.

    Raises:
        DataError: one is below 0 or does not fit into 16 bits.
    """
    numbers = [int(number) for number in np.unique(mask)]
    if numbers and (numbers[0] < 0 or numbers[-1] > MOST_NUMBER):
        raise DataError(
            f"the mask's numbers run from {numbers[0]} to {numbers[-1]}: they must be from 0 to {MOST_NUMBER}",
            where=where,
            hint="give pixels that count nowhere a number of their own, and say which: task.ignore, 255 unless said",
        )
    return numbers


def check_numbers_known(values: Array, where: str) -> None:
    """Check that numbers are finite, or NaN where nothing is known.

    Raises:
        DataError: one is infinite.
    """
    if np.isinf(values).any():
        raise DataError("a target is infinite", where=where, hint="write NaN where nothing is known: it counts nowhere")


def check_target_file(
    file: Path, image: tuple[int, int], geometry: Geometry | None
) -> tuple[list[int], tuple[int, ...]]:
    """Read a target once: the numbers that a mask holds, and the shape that targets of other kinds have.

    Args:
        image: the width and height of its image, which a mask has to have.

    Raises:
        DataError: it cannot be read, or a mask is of another size than its image.
    """
    if geometry is None:
        values = read_target(file, None)
        check_numbers_known(values, str(file))
        return [], values.shape
    numbers = _mask(file)
    if numbers.shape != image[::-1]:
        raise DataError(
            f"the mask is {numbers.shape[1]}x{numbers.shape[0]}, its image {image[0]}x{image[1]}",
            where=str(file),
            hint="a mask has a pixel for each of its image's",
        )
    return numbers_in(numbers, str(file)), ()


def read_target(file: Path, geometry: Geometry | None) -> Array:
    """A mask, int64 (H, W), cut as its image is; or numbers as float32: of .npy as they are, of an image (channels, H,
    W) scaled to 0..1 (8 bits by 255, 16 bits by 65535).

    Raises:
        DataError: it cannot be read.
    """
    if geometry is not None:
        return cut_mask(_mask(file), geometry)
    if file.suffix.lower() == ".npy":
        values = _npy(file)
        if values.dtype.kind not in "fiub":
            raise DataError(f"its values are {values.dtype}, no numbers", where=str(file))
        return values.astype(np.float32)
    try:
        numbers, most = raw_numbers(file.read_bytes())
    except DataError as error:
        raise DataError(error.what, where=str(file), hint=error.hint) from error
    except OSError as error:
        raise DataError(f"the target cannot be read: {error}", where=str(file)) from error
    planes = numbers[None] if numbers.ndim == 2 else numbers.transpose(2, 0, 1)
    return (planes / np.float32(most)).astype(np.float32)


def cut_mask(numbers: Array, geometry: Geometry) -> Array:
    """A mask (h, w) resized and cut as its image is, to the nearest pixel: int64 (H, W). Numbers up to 65535 go through
    two planes of 8 bits."""
    nearest = replace(geometry, channels=1, interpolation="nearest")
    low, high = (numbers & 0xFF).astype(np.uint8), (numbers >> 8).astype(np.uint8)
    cut = nearest.apply(Image.fromarray(low))[0].astype(np.int64)
    return cut if not high.any() else cut + (nearest.apply(Image.fromarray(high))[0].astype(np.int64) << 8)


def _state(file: Path) -> tuple[int, int]:
    try:
        return file_state(file)
    except OSError as error:
        raise DataError(
            f"the target cannot be read: {error.strerror or error}", where=str(file), hint="bring the file back"
        ) from error


def _mask(file: Path) -> Array:
    if file.suffix.lower() == ".npy":
        numbers = _npy(file)
        if numbers.ndim != 2 or numbers.dtype.kind not in "iub":
            raise DataError(f"the mask is {numbers.dtype} of shape {numbers.shape}", where=str(file), hint=_MASK)
        return numbers.astype(np.int64)
    try:
        numbers, _ = raw_numbers(file.read_bytes())
    except DataError as error:
        raise DataError(error.what, where=str(file), hint=error.hint) from error
    except OSError as error:
        raise DataError(f"the mask cannot be read: {error}", where=str(file)) from error
    if numbers.ndim != 2:
        raise DataError("the mask has colours, and nothing says which class each is", where=str(file), hint=_MASK)
    return numbers.astype(np.int64)


_MASK = "save it grey or with a palette (PNG), each pixel the number of its class; or as .npy (height, width)"


def _npy(file: Path) -> Array:
    try:
        values: Array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"no .npy file that can be read: {error}", where=str(file)) from error
    return values
