"""timm's data sets. Those that are folders are read as any folder is: one rule for classes, splits and pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.data.decode import upright
from edgeprune.data.folders import Listing
from edgeprune.data.images import DecodedImages
from edgeprune.data.pools import MOST_CLASSES, FolderPool, Found, Labelled, Opening, Source
from edgeprune.errors import DataError

_SCHEMES = ("torch", "hfds", "hfids", "tfds", "wds")
_FOLDERS = ("torch/image_folder", "torch/folder")  # torchvision's ImageFolder
_TIMM_FOLDERS = ("", "folder", "imagefolder", "image_folder")


@dataclass(frozen=True)
class DatasetPool:
    """A map-style data set of (PIL image, label) that does not lie in a file an image."""

    data: Any
    where: str
    archive: Path | None = None  # what the images are in

    def files(self) -> Mapping[str, Path]:
        return {self.archive.name: self.archive} if self.archive is not None else {}

    def open(self, opening: Opening) -> Labelled:
        data, where = self.data, self.where
        labels = _labels(data, where)
        named = getattr(data, "classes", None) or getattr(getattr(data, "reader", None), "class_to_idx", None)
        classes = tuple(map(str, named)) if named else tuple(str(i) for i in range(int(labels.max()) + 1))
        if labels.max() >= len(classes):
            raise DataError(f"label {labels.max()} of {len(classes)} classes", where=where)
        pixels = []
        for number in range(len(data)):
            if number % 256 == 0:
                opening.progress.update(f"checking {len(data)} images", number, len(data))
            pixels.append(_decoded(data, number, where).pixels_digest)
        images = DecodedImages(
            len(data),
            lambda i: _decoded(data, i, where).image,
            lambda i: f"{where}, image {i}",
            opening.geometry,
            memory_limit=opening.memory_limit,
        )
        names = tuple(str(number) for number in range(len(labels)))
        numbered = self.archive is None
        return Labelled(where, images, labels, classes, names, tuple(pixels), numbered=numbered)


def find_timm(source: str, as_folder: Callable[[Path], Source]) -> Source:
    """`timm:NAME[@ROOT]` or `timm:FOLDER`: timm's create_dataset; ROOT is where the files are.

    Args:
        source: as a recipe has it.
        as_folder: opens a folder of images.

    Raises:
        DataError: timm cannot open it, or it has no random access.
    """
    name, _, root = source.removeprefix("timm:").partition("@")
    scheme = name.partition("/")[0].lower()
    if name.lower() in _FOLDERS or scheme not in _SCHEMES:
        if folder := _folder(name, root):
            return as_folder(folder)
        if not root:
            raise DataError(
                "no such data folder", where=source, hint="write timm:FOLDER, timm:@FOLDER or timm:torch/NAME[@FOLDER]"
            )
    place = _root(root)
    opened = {part: _create(name, place, split, source) for part, split in (("train", "train"), ("test", "validation"))}
    if place.is_file():  # an archive, which timm does not divide
        return Source(whole=DatasetPool(opened["train"], source, place))
    train, test = (_pool(data, f"{source} ({part})") for part, data in opened.items())
    return Source(train=train, test=test)


def _folder(name: str, root: str) -> Path | None:
    """The folder that is meant, where it is one."""
    if root:
        place = Path(root).expanduser()
        return None if place.is_file() else place
    place = Path(name).expanduser()
    return place if place.is_dir() else None


def _root(root: str) -> Path:
    if root:
        return Path(root).expanduser()
    from platformdirs import user_cache_path

    folder = user_cache_path("edgeprune") / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _create(name: str, root: Path, split: str, source: str) -> Any:
    from edgeprune.models.timm_import import import_timm

    try:
        download = name.lower().startswith("torch/")
        data = import_timm().data.create_dataset(name, root=str(root), split=split, download=download)
    except Exception as error:
        raise DataError(
            f"timm could not open this data set: {type(error).__name__}: {error}",
            where=source,
            hint="check the name and, after @, the folder; it may have to be downloaded first",
        ) from error
    if hasattr(data, "input_img_mode"):
        data.input_img_mode = ""  # else it clips 16-bit images to white before we see them
    return data


def _pool(data: Any, where: str) -> Found:
    """A data set's images; where they are files of their own, as such."""
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise DataError("only data sets with random access are supported", where=where, hint="not wds/, tfds/, hfids/")
    if len(data) == 0:
        raise DataError("the data set is empty", where=where)
    samples, classes = getattr(data, "samples", None), getattr(data, "classes", None)
    if samples and classes and all(isinstance(path, str) for path, _ in samples[:1]):
        names = [one if isinstance(one, str) else ", ".join(one) for one in classes]
        paths = tuple(Path(path) for path, _ in samples)
        root = Path(os.path.commonpath([path.parent for path in paths]))
        return FolderPool(Listing(root, tuple(names), paths, tuple(label for _, label in samples)), numbered=True)
    return DatasetPool(data, where)


def _labels(data: Any, where: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    targets = getattr(data, "targets", None)
    samples = getattr(getattr(data, "reader", None), "samples", None)
    try:
        if targets is None:
            targets = [one[1] for one in samples] if samples else [data[i][1] for i in range(len(data))]
        labels = np.array(targets, np.int64)
    except Exception as error:
        raise DataError(f"its labels cannot be read: {type(error).__name__}: {error}", where=where) from error
    if labels.shape != (len(data),) or labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise DataError("its labels are not one class number an image", where=where, hint="use another data set")
    return labels


def _decoded(data: Any, number: int, where: str) -> Any:
    name = f"{where}, image {number}"
    try:
        image = data[number][0]
    except Exception as error:
        raise DataError(f"the image cannot be read: {error}", where=name, hint="download the data set again") from error
    try:
        return upright(image)
    except DataError as error:
        raise DataError(error.what, where=name, hint="use another data set") from error
