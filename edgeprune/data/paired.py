"""Images with targets beside them: two folders of files of the same names, or two arrays of an .npz file.

ROOT/images/a.jpg    ROOT/masks/a.png       masks (of segmentation)
ROOT/images/a.png    ROOT/targets/a.png     numbers (of regression): an image or .npy
and the same within ROOT/train and ROOT/test, by any usual name of a split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeprune.data.archive import read_arrays
from edgeprune.data.decode import pixels_digest
from edgeprune.data.folders import NoData, files_below, role_of, visible_folders
from edgeprune.data.images import Geometry, array_images
from edgeprune.data.listed import Files, ListedPool, check_not_resized
from edgeprune.data.pools import Labelled, Opening, Source, check_shape
from edgeprune.data.targets import ArrayTargets, TargetSource, check_numbers_known, mask_targets
from edgeprune.errors import DataError, listed

Kind = Literal["classes", "mask", "values"]
_IMAGES = ("images", "image", "imgs", "img", "inputs", "input", "jpegimages", "lr")
_BESIDE: dict[Kind, tuple[str, ...]] = {
    "mask": ("masks", "mask", "labels", "annotations", "segmentationclass", "targets"),
    "values": ("targets", "target", "depth", "depths", "maps", "heatmaps", "hr", "labels", "outputs"),
    "classes": (),
}
_ARRAYS: dict[Kind, str] = {"mask": "masks", "values": "targets", "classes": "labels"}


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
            hint="name a folder, csv:FILE, npz:FILE, coco:FILE, or a data set of your own: see docs/data.md",
        )
    return _folder(Path(source).expanduser(), kind, named)


_WORDS: dict[Kind, str] = {
    "mask": "a mask for each",
    "values": "numbers for each",
    "classes": "0 or 1 for each class of each",
}


def pair_in(root: Path, kind: Kind) -> ListedPool:
    """The files of a folder of images and of one beside it, paired by their names without suffix.

    Raises:
        NoData: there is no such folder, or no image in it.
        DataError: it holds no such pair, or an image has nothing beside it.
    """
    folders = {folder.name.lower(): folder for folder in visible_folders(root)}
    if kind == "classes":
        raise DataError(
            f"a folder does not say {_WORDS[kind]} image",
            where=str(root),
            hint="list the images in a CSV file, and write csv:FILE: see docs/data.md",
        )
    images = next((folders[name] for name in _IMAGES if name in folders), None)
    beside = next((folders[name] for name in _BESIDE[kind] if name in folders), None)
    if images is None or beside is None:
        there = listed(sorted(folder.name for folder in folders.values())) or "no folder"
        raise DataError(
            f"there are no images with {_WORDS[kind]}: it holds {there}",
            where=str(root),
            hint=f"put the images into images/ and what belongs to them, by the same names, into {_BESIDE[kind][0]}/",
        )
    pairs = _pairs(root, images, beside)
    return ListedPool(str(root), root, tuple(pairs), Files(tuple(pairs.values()), kind))


def _pairs(root: Path, images: Path, beside: Path) -> dict[Path, Path]:
    of_images, of_beside = _by_stem(images, files_below(images)), _by_stem(beside, files_below(beside, also=(".npy",)))
    if not of_images:
        raise NoData("there are no images", where=str(images), hint="add images")
    if lacking := sorted(of_images.keys() - of_beside.keys()):
        raise DataError(
            f"{len(lacking)} of {len(of_images)} images have nothing beside them in {beside.name}/: "
            f"{listed(lacking, 3)}",
            where=str(root),
            hint="give both files the same name, up to the suffix; or remove the image",
        )
    return {of_images[stem]: of_beside[stem] for stem in sorted(of_images)}


def _by_stem(folder: Path, files: list[Path]) -> dict[str, Path]:
    stems = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    if twice := [stem for stem, count in Counter(stems).items() if count > 1]:
        raise DataError(
            f"two files have one name up to the suffix: {listed(sorted(twice), 3)}",
            where=str(folder),
            hint="rename one of them",
        )
    return dict(zip(stems, files, strict=True))


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
            check_not_resized(opening.geometry, images.shape[2], images.shape[1], where)
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
        check_numbers_known(values, where)
        return ArrayTargets(values.astype(np.float32))


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
