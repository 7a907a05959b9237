"""Images with targets beside them: two folders of files of the same names, or two arrays of an .npz file.

ROOT/images/a.jpg    ROOT/masks/a.png       masks (of segmentation)
ROOT/images/a.png    ROOT/targets/a.png     numbers (of regression): an image or .npy
and the same within ROOT/train and ROOT/test, by any usual name of a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.data.archive import read_arrays
from edgeprune.data.check import check_files
from edgeprune.data.decode import pixels_digest, said_of
from edgeprune.data.folders import NoData, files_below, role_of, visible_folders
from edgeprune.data.images import Geometry, array_images, file_images
from edgeprune.data.pools import Labelled, Opening, Source, check_shape
from edgeprune.data.targets import (
    ArrayTargets,
    FileTargets,
    TargetSource,
    check_target_file,
    mask_targets,
    read_target,
)
from edgeprune.errors import DataError, listed

Kind = Literal["classes", "mask", "values"]
_IMAGES = ("images", "image", "imgs", "img", "inputs", "input", "jpegimages", "lr")
_BESIDE: dict[Kind, tuple[str, ...]] = {
    "mask": ("masks", "mask", "labels", "annotations", "segmentationclass", "targets"),
    "values": ("targets", "target", "depth", "depths", "maps", "heatmaps", "hr", "labels", "outputs"),
    "classes": (),
}
_ARRAYS: dict[Kind, str] = {"mask": "masks", "values": "targets", "classes": "labels"}
_WORKERS = 4


def find_paired(source: str, kind: Kind, *, named: frozenset[str] = frozenset()) -> Source:
    """Find a folder or `npz:FILE` of images with targets.

    Raises:
        NoData: there is no such folder or file.
        DataError: it holds no such pairs.
    """
    if source.startswith("npz:"):
        return _npz(Path(source.removeprefix("npz:")).expanduser(), kind)
    if source == "digits" or source.startswith("timm:"):
        raise DataError(
            f"{source} gives a class for each image, and the task needs {_WORDS[kind]}",
            where="data.source",
            hint="name a folder, an .npz file, or a data set of your own: see docs/tasks.md",
        )
    return _folder(Path(source).expanduser(), kind, named)


_WORDS: dict[Kind, str] = {
    "mask": "a mask for each",
    "values": "numbers for each",
    "classes": "0 or 1 for each class of each",
}


def pair_in(root: Path, kind: Kind) -> FolderPair:
    """The pair of folders that a folder holds.

    Raises:
        NoData: there is no such folder.
        DataError: it holds no such pair.
    """
    folders = {folder.name.lower(): folder for folder in visible_folders(root)}
    images = next((folders[name] for name in _IMAGES if name in folders), None)
    beside = next((folders[name] for name in _BESIDE[kind] if name in folders), None)
    if images is None or beside is None:
        there = listed(sorted(folder.name for folder in folders.values())) or "no folder"
        wanted = _BESIDE[kind][0] if _BESIDE[kind] else "a CSV file"
        raise DataError(
            f"there are no images with {_WORDS[kind]}: it holds {there}",
            where=str(root),
            hint=f"put the images into images/ and what belongs to them, by the same names, into {wanted}/",
        )
    return FolderPair(root, images, beside, kind)


def _folder(root: Path, kind: Kind, named: frozenset[str]) -> Source:
    splits = {
        role: folder for folder in visible_folders(root) if folder.name not in named and (role := role_of(folder.name))
    }
    if not splits:
        return Source() if named else Source(whole=pair_in(root, kind))
    told = []
    if "test" in splits and "validation" in splits:
        told.append(f"not used: {splits['validation'].name}/: validation images are taken out of training")
    test = splits.get("test") or splits.get("validation")
    train = splits.get("train")
    return Source(
        train=pair_in(train, kind) if train else None,
        test=pair_in(test, kind) if test else None,
        told=tuple(told),
    )


@dataclass(frozen=True)
class FolderPair:
    """Files of a folder of images, and of one beside it, paired by their names without suffix."""

    root: Path
    images: Path
    beside: Path
    kind: Kind

    @property
    def where(self) -> str:
        return str(self.root)

    def files(self) -> Mapping[str, Path]:
        pairs = self._pairs()
        return {
            path.relative_to(self.root).as_posix(): path
            for pair in pairs
            for path in pair
            if path.is_relative_to(self.root)
        }

    def open(self, opening: Opening) -> Labelled:
        pairs = self._pairs()
        images, beside = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        geometry = opening.geometry if self.kind == "mask" else None
        names = tuple(path.relative_to(self.images).as_posix() for path in images)
        if opening.known is not None:
            pixels = tuple(opening.known.get(name, "") for name in names)
            checked, told = [], []
        else:
            checked = check_files(self.images, images, progress=opening.progress)
            pixels = tuple(one.pixels for one in checked)
            told = [f"in {self.images.name}/: {said}" for said in said_of(n for one in checked for n in one.notes)]
            for path, one in zip(images, checked, strict=True):
                check_shape(opening.geometry, one.width, one.height, str(path))
                if self.kind == "values" and read_target(beside[0], None).ndim > 1:
                    _check_not_resized(opening.geometry, one.width, one.height, str(path))
        numbers = self._numbers(beside, [(one.width, one.height) for one in checked], geometry, opening)
        return Labelled(
            self.where,
            file_images(images, opening.geometry, memory_limit=opening.memory_limit),
            np.zeros(len(pairs), np.int64),
            (),
            names,
            pixels,
            numbered=True,
            told=tuple(told),
            in_files=True,
            targets=FileTargets(tuple(beside), geometry, numbers),
        )

    def _numbers(
        self, beside: list[Path], sizes: list[tuple[int, int]], geometry: Geometry | None, opening: Opening
    ) -> frozenset[int]:
        """Read every target once, unless that was done before."""
        found: set[int] = set()
        if not sizes:
            return frozenset()
        with ThreadPoolExecutor(_WORKERS) as pool:
            reading = pool.map(lambda file, size: check_target_file(file, size, geometry), beside, sizes)
            for done, numbers in enumerate(reading, start=1):
                found |= numbers
                opening.progress.update(f"targets in {self.beside.name}/", done, len(beside))
        return frozenset(found)

    def _pairs(self) -> list[tuple[Path, Path]]:
        images = self._by_stem(self.images, files_below(self.images))
        beside = self._by_stem(self.beside, files_below(self.beside, also=(".npy",)))
        if lacking := sorted(images.keys() - beside.keys()):
            raise DataError(
                f"{len(lacking)} of {len(images)} images have nothing beside them in {self.beside.name}/: "
                f"{listed(lacking, 3)}",
                where=str(self.root),
                hint="give both files the same name, up to the suffix; or remove the image",
            )
        if not images:
            raise NoData("there are no images", where=str(self.images), hint="add images")
        return [(images[stem], beside[stem]) for stem in sorted(images)]

    def _by_stem(self, folder: Path, files: list[Path]) -> dict[str, Path]:
        stems = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
        if twice := [stem for stem, count in Counter(stems).items() if count > 1]:
            raise DataError(
                f"two files have one name up to the suffix: {listed(sorted(twice), 3)}",
                where=str(folder),
                hint="rename one of them",
            )
        return dict(zip(stems, files, strict=True))


@dataclass(frozen=True)
class ArrayPair:
    """Arrays of an .npz file: PART_images uint8 (N, H, W[, 1 or 3]), and PART_masks whole numbers (N, H, W), or
    PART_targets floats (N, ...), or PART_labels 0 or 1 (N, classes)."""

    path: Path
    part: str
    kind: Kind

    @property
    def where(self) -> str:
        return f"{self.path} ({self.part})"

    def files(self) -> Mapping[str, Path]:
        return {self.path.name: self.path}

    def open(self, opening: Opening) -> Labelled:
        where, beside = str(self.path), f"{self.part}_{_ARRAYS[self.kind]}"
        arrays, there = read_arrays(self.path, (f"{self.part}_images", beside))
        if beside not in arrays:
            raise DataError(
                f"`{beside}` is missing; it holds {', '.join(there[:20])}",
                where=where,
                hint=f"the task needs {_WORDS[self.kind]} image",
            )
        images, values = arrays[f"{self.part}_images"], arrays[beside]
        if (
            images.dtype != np.uint8
            or images.ndim not in (3, 4)
            or (images.ndim == 4 and images.shape[-1] not in (1, 3))
        ):
            raise DataError(
                f"`{self.part}_images` is {images.dtype} of shape {images.shape}",
                where=where,
                hint="it must be uint8 (N, height, width, 1 or 3)",
            )
        if len(values) != len(images) or len(images) == 0:
            raise DataError(f"{len(images)} images have {len(values)} in `{beside}`", where=where)
        check_shape(opening.geometry, images.shape[2], images.shape[1], where)
        if self.kind == "values" and values.ndim > 2:
            _check_not_resized(opening.geometry, images.shape[2], images.shape[1], where)
        return Labelled(
            self.where,
            array_images(images, opening.geometry, memory_limit=opening.memory_limit),
            np.zeros(len(images), np.int64),
            (),
            tuple(str(number) for number in range(len(images))),
            tuple(pixels_digest(image) for image in images),
            numbered=True,
            targets=self._targets(values, images.shape[1:3], opening.geometry, where),
        )

    def _targets(self, values: npt.NDArray[Any], size: tuple[int, ...], geometry: Geometry, where: str) -> TargetSource:
        if self.kind == "mask":
            return mask_targets(values, (int(size[0]), int(size[1])), geometry, where)
        if self.kind == "classes":
            if values.ndim != 2 or not np.isin(values, (0, 1)).all():
                raise DataError(
                    f"`{self.part}_labels` is {values.dtype} of shape {values.shape}",
                    where=where,
                    hint="it must be 0 or 1 for each class, (N, classes)",
                )
            return ArrayTargets(values.astype(np.int64))
        if values.dtype.kind not in "fiu":
            raise DataError(f"`{self.part}_targets` is {values.dtype}, no numbers", where=where)
        return ArrayTargets(values.astype(np.float32))


def _check_not_resized(geometry: Geometry, width: int, height: int, where: str) -> None:
    """Maps of numbers stay as they are, so their images have to, too.

    Raises:
        DataError: an image would be resized or cut.
    """
    sizes = {(width, height), (geometry.width, geometry.height), (geometry.cover_width, geometry.cover_height)}
    if len(sizes) > 1:
        raise DataError(
            f"the image is {width}x{height}, and would be resized to {geometry.cover_width}x{geometry.cover_height} "
            f"and cut to the model's {geometry.width}x{geometry.height}: its map of numbers could not follow",
            where=where,
            hint="give images of the model's size, and data.crop_pct = 1; or a data set of your own",
        )


def _npz(path: Path, kind: Kind) -> Source:
    _, there = read_arrays(path, ())
    if "train_images" not in there and "test_images" not in there:
        raise DataError(
            f"`train_images` is missing; it holds {', '.join(there[:20]) or 'nothing'}",
            where=str(path),
            hint=f"save train_images and train_{_ARRAYS[kind]}, and the same of test",
        )
    parts = {part: ArrayPair(path, part, kind) for part in ("train", "test") if f"{part}_images" in there}
    return Source(train=parts.get("train"), test=parts.get("test"))
