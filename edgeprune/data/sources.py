"""Where images come from: the embedded digits, a folder, an .npz file, or timm's dataset factory.

A source is found first, which only looks at names, and opened then, which looks at every image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.data.archive import read_arrays
from edgeprune.data.decode import pixels_digest
from edgeprune.data.folders import layout_of, list_classes, role_of, visible_folders
from edgeprune.data.images import Images, array_images
from edgeprune.data.pools import MOST_CLASSES, FolderPool, Labelled, Opening, Source, check_shape
from edgeprune.data.split import Labels
from edgeprune.errors import DataError


@dataclass(frozen=True)
class ArrayPool:
    """Arrays of an .npz file: PART_images uint8 (N, H, W[, 1 or 3]) and PART_labels, whole numbers (N,) or (N, 1)."""

    file: _NpzFile
    part: str

    @property
    def where(self) -> str:
        return f"{self.file.path} ({self.part})"

    def files(self) -> Mapping[str, Path]:
        return {self.file.path.name: self.file.path}

    def open(self, opening: Opening) -> Labelled:
        where = str(self.file.path)
        images, labels = self.file.arrays[f"{self.part}_images"], self.file.arrays.get(f"{self.part}_labels")
        grey_or_rgb = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
        if images.dtype != np.uint8 or not grey_or_rgb or 0 in images.shape:
            raise DataError(
                f"`{self.part}_images` is {images.dtype} of shape {images.shape}",
                where=where,
                hint=f"it must be uint8 (N, height, width, 1 or 3), none of them 0{_how_to_get_there(images)}",
            )
        flat = labels.reshape(-1) if labels is not None and labels.shape == (len(images), 1) else labels
        if flat is None or flat.shape != (len(images),) or flat.dtype.kind not in "iu":
            got = f"it is {labels.dtype} of shape {labels.shape}" if labels is not None else "it is missing"
            raise DataError(
                f"`{self.part}_labels` must be {len(images)} whole numbers, {got}",
                where=where,
                hint="give each image the number of its class, from 0: labels.astype('int64'), of one-hot ones "
                "labels.argmax(1)",
            )
        check_shape(opening.geometry, images.shape[2], images.shape[1], where)
        return _numbered_pool(
            self.where,
            array_images(images, opening.geometry, memory_limit=opening.memory_limit),
            _checked_labels(flat, f"{self.part}_labels", where),
            tuple(pixels_digest(image) for image in images),
        )


def _how_to_get_there(images: npt.NDArray[Any]) -> str:
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3):
        return ": channels are last, images.transpose(0, 2, 3, 1)"
    if images.dtype.kind == "f":
        return ": of values from 0 to 1, (images * 255).round().astype('uint8')"
    return ": of 16 bits, (images >> 8).astype('uint8')" if images.dtype == np.uint16 else ""


@dataclass(frozen=True)
class Digits:
    """1797 handwritten digits, 8x8 with 17 grey levels, resized to the model's input: the test part of "Optical
    Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak; UCI, CC BY 4.0), as scikit-learn has it too."""

    where: str = "digits"

    def files(self) -> Mapping[str, Path]:
        return {}

    def open(self, opening: Opening) -> Labelled:
        with np.load(Path(__file__).with_name("digits.npz")) as digits:
            pixels, labels = np.round(digits["images"] * (255 / 16)).astype(np.uint8), digits["labels"].astype(np.int64)
        images = array_images(pixels, opening.geometry, memory_limit=opening.memory_limit)
        return _numbered_pool("digits", images, labels, tuple(pixels_digest(image) for image in pixels))


def find_source(source: str, *, named: frozenset[str] = frozenset(), labels: tuple[str, ...] = ()) -> Source:
    """Find `digits`, `npz:FILE`, `timm:NAME[@ROOT]` or a folder.

    Args:
        source: as a recipe has it.
        named: sub-folders that the recipe names as parts.
        labels: the model's class names, where they are known.

    Raises:
        DataError: it is missing, empty, of one class, or not understood.
    """
    if not source.removeprefix("npz:").removeprefix("timm:").strip(" @"):
        raise DataError(
            "no data are named",
            where=f"source = {source!r}",
            hint="give a folder with one folder for each class, digits, npz:FILE, csv:FILE, coco:FILE or timm:NAME",
        )
    if source == "digits":
        return Source(whole=Digits())
    if source.startswith("npz:"):
        return _npz(Path(source.removeprefix("npz:")).expanduser())
    if source.startswith("timm:"):
        from edgeprune.data.timm_sources import find_timm

        return find_timm(source, lambda root: folder_source(root, labels=labels))
    return folder_source(Path(source).expanduser(), named=named, labels=labels)


def folder_source(root: Path, *, named: frozenset[str] = frozenset(), labels: tuple[str, ...] = ()) -> Source:
    """A folder of class folders, or of splits that hold class folders; see `find_source`."""
    splits = (folder for folder in visible_folders(root) if folder.name not in named and role_of(folder.name))
    if named and not any(visible_folders(split) for split in splits):
        return Source()  # the folder only holds the named ones: its other sub-folders are no classes
    layout = layout_of(root, named=named, labels=labels)
    if layout.classes:
        return Source(whole=FolderPool(list_classes(root, folders=layout.classes, labels=labels)), told=layout.told)
    train, test = (
        FolderPool(list_classes(folder, labels=labels)) if folder else None for folder in (layout.train, layout.test)
    )
    return Source(train=train, test=test, told=layout.told)


class _NpzFile:
    """An .npz file, unpacked when it is first used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        names = [f"{part}_{what}" for part in ("train", "test") for what in ("images", "labels")]
        arrays, there = read_arrays(self.path, names)
        if "train_images" not in arrays:
            raise DataError(
                f"`train_images` is missing; it holds {', '.join(there[:20]) or 'nothing'}",
                where=str(self.path),
                hint="save train_images, train_labels, test_images and test_labels",
            )
        return arrays


def _npz(path: Path) -> Source:
    file = _NpzFile(path)
    _, there = read_arrays(path, ())
    if "test_images" not in there:
        return Source(train=ArrayPool(file, "train"))
    return Source(train=ArrayPool(file, "train"), test=ArrayPool(file, "test"))


def _numbered_pool(where: str, images: Images, labels: Labels, pixels: tuple[str, ...]) -> Labelled:
    classes = tuple(str(number) for number in range(int(labels.max()) + 1))
    names = tuple(str(number) for number in range(len(labels)))
    return Labelled(where, images, labels, classes, names, pixels, numbered=True)


def _checked_labels(labels: npt.NDArray[Any], name: str, where: str) -> Labels:
    if labels.min() < 0:
        raise DataError(f"`{name}` has negative labels", where=where)
    if labels.max() >= MOST_CLASSES:
        raise DataError(
            f"`{name}` goes up to {labels.max()}, and a label is the number of a class, from 0",
            where=where,
            hint="number the classes 0, 1, 2, ... in the order of the model's outputs",
        )
    return labels.astype(np.int64)
