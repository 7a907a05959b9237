"""Where images come from: the embedded digits, a folder, an .npz file, or timm's dataset factory."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.data.images import ArrayImages, DecodedImages, Geometry, Images, file_images
from edgeprune.data.split import Labels
from edgeprune.errors import DataError

_EXTENSIONS = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
_TRAIN, _TEST = ("train",), ("test", "val", "validation", "valid")
SPLIT_FOLDERS = _TRAIN + _TEST


@dataclass(frozen=True)
class Labelled:
    """A pool of images, their labels as positions in `classes`, and where they are from."""

    where: str
    images: Images
    labels: Labels
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """What a source holds: splits of its own, or one undivided pool (`whole`)."""

    train: Labelled | None = None
    test: Labelled | None = None
    whole: Labelled | None = None

    def for_training(self) -> Labelled | None:
        return self.train or self.whole

    def for_testing(self) -> Labelled | None:
        return self.test or self.whole


def open_source(source: str, geometry: Geometry, *, memory_limit: int) -> Source:
    """Open `digits`, `npz:FILE`, `timm:NAME[@ROOT]` or a folder.

    Raises:
        DataError: it is missing, empty, of one class, or not understood.
    """
    if source == "digits":
        return Source(whole=_digits(geometry))
    if source.startswith("npz:"):
        return _npz(Path(source.removeprefix("npz:")).expanduser(), geometry)
    if source.startswith("timm:"):
        return _timm(source, geometry, memory_limit)
    return _folder(Path(source).expanduser(), geometry, memory_limit)


def image_folder(folder: Path, geometry: Geometry, *, memory_limit: int) -> Labelled:
    """A folder with one sub-folder for each class; a class's index is its name's place in sorted order.

    Raises:
        DataError: the folder is missing, has no class folders or one only, or a class has no images.
    """
    if not folder.is_dir():
        raise DataError("no such data folder", where=str(folder), hint="check `source` in [data]")
    classes = _class_folders(folder)
    paths: list[Path] = []
    labels: list[int] = []
    for index, one in enumerate(classes):
        found = sorted(p for p in one.rglob("*") if p.suffix.lower() in _EXTENSIONS and p.is_file())
        if not found:
            raise DataError("no images in this class's folder", where=str(one), hint="add images or remove the folder")
        paths += found
        labels += [index] * len(found)
    images = file_images(paths, geometry, memory_limit=memory_limit)
    return Labelled(str(folder), images, np.array(labels, np.int64), tuple(one.name for one in classes))


def _class_folders(folder: Path) -> list[Path]:
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(
            "the data folder has no class folders", where=str(folder), hint="put each class's images into a folder"
        )
    if len(classes) == 1:
        raise DataError(
            f"only one class is here: {classes[0].name}", where=str(folder), hint="a classifier needs two or more"
        )
    return classes


def _folder(root: Path, geometry: Geometry, memory_limit: int) -> Source:
    if not root.is_dir():
        raise DataError(
            "no such data folder or source",
            where=str(root),
            hint="give a folder with one folder for each class, digits, npz:FILE or timm:NAME",
        )
    train = next((root / name for name in _TRAIN if (root / name).is_dir()), None)
    test = next((root / name for name in _TEST if (root / name).is_dir()), None)
    if train is None and test is None:
        return Source(whole=image_folder(root, geometry, memory_limit=memory_limit))
    return Source(
        train=image_folder(train, geometry, memory_limit=memory_limit) if train else None,
        test=image_folder(test, geometry, memory_limit=memory_limit) if test else None,
    )


def _digits(geometry: Geometry) -> Labelled:
    """scikit-learn's 1797 handwritten digits, 8x8 with 17 grey levels, resized to the model's input."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    return Labelled("digits", ArrayImages(pixels, geometry), labels, tuple("0123456789"))


def _npz(path: Path, geometry: Geometry) -> Source:
    if not path.is_file():
        raise DataError("no such .npz file", where=str(path), hint="check `source` in [data]")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"not an .npz file of plain arrays: {error}", where=str(path)) from error
    train = _npz_part(arrays, "train", geometry, path)
    if train is None:
        raise DataError(
            f"`train_images` is missing; it holds {', '.join(arrays) or 'nothing'}",
            where=str(path),
            hint="save train_images, train_labels, test_images and test_labels",
        )
    return Source(train=train, test=_npz_part(arrays, "test", geometry, path))


def _npz_part(arrays: Mapping[str, Any], part: str, geometry: Geometry, path: Path) -> Labelled | None:
    images, labels = arrays.get(f"{part}_images"), arrays.get(f"{part}_labels")
    if images is None:
        return None
    grey_or_rgb = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if images.dtype != np.uint8 or not grey_or_rgb or len(images) == 0:
        raise DataError(
            f"`{part}_images` is {images.dtype} of shape {images.shape}",
            where=str(path),
            hint="it must be uint8 (N, height, width, 1 or 3), N above 0",
        )
    if labels is None or labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"`{part}_labels` must be {len(images)} whole numbers", where=str(path))
    if labels.min() < 0:
        raise DataError(f"`{part}_labels` has negative labels", where=str(path))
    classes = tuple(str(i) for i in range(int(labels.max()) + 1))
    return Labelled(f"{path} ({part})", ArrayImages(images, geometry), labels.astype(np.int64), classes)


def _timm(source: str, geometry: Geometry, memory_limit: int) -> Source:
    """`timm:NAME[@ROOT]`: timm's create_dataset with splits `train` and `validation`; ROOT is where the files are."""
    from edgeprune.models.timm_import import import_timm

    name, _, root = source.removeprefix("timm:").partition("@")
    create = import_timm().data.create_dataset
    place = str(_timm_root(root))
    opened = {}
    for part, split in (("train", "train"), ("test", "validation")):
        try:
            opened[part] = create(name, root=place, split=split, download=name.startswith("torch/"))
        except Exception as error:
            raise DataError(
                f"timm could not open this data set: {type(error).__name__}: {error}",
                where=source,
                hint="check the name and, after @, the folder; it may have to be downloaded first",
            ) from error
    if (files := _files(opened["train"])) is not None and files == _files(opened["test"]):
        return Source(whole=_dataset(opened["train"], source, geometry, memory_limit))  # one undivided folder
    return Source(
        **{part: _dataset(data, f"{source} ({part})", geometry, memory_limit) for part, data in opened.items()}
    )


def _files(data: Any) -> list[str] | None:
    """The files a timm data set reads, where it reads files."""
    filenames = getattr(getattr(data, "reader", None), "filenames", None)
    return list(filenames(absolute=True)) if filenames is not None else None


def _timm_root(root: str) -> Path:
    if root:
        return Path(root).expanduser()
    from platformdirs import user_cache_path

    folder = user_cache_path("edgeprune") / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _dataset(data: Any, where: str, geometry: Geometry, memory_limit: int) -> Labelled:
    """A map-style data set of (PIL image, label)."""
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise DataError("only data sets with random access are supported", where=where, hint="not wds/, tfds/, hfids/")
    if len(data) == 0:
        raise DataError("the data set is empty", where=where)
    targets = getattr(data, "targets", None)
    labels = np.array([data[i][1] for i in range(len(data))] if targets is None else targets, np.int64)
    named = getattr(data, "classes", None) or getattr(getattr(data, "reader", None), "class_to_idx", None)
    classes = tuple(str(one) for one in named) if named else tuple(str(i) for i in range(int(labels.max()) + 1))
    images = DecodedImages(
        len(data), lambda i: data[i][0], lambda i: f"{where}, image {i}", geometry, memory_limit=memory_limit
    )
    return Labelled(where, images, labels, classes)
