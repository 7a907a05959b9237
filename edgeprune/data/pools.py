"""Pools of images: what any source offers, found first and opened then; and the one of files in class folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgeprune.data.check import check_files
from edgeprune.data.decode import said_of
from edgeprune.data.folders import Listing
from edgeprune.data.images import Geometry, Images, file_images
from edgeprune.data.split import Labels
from edgeprune.data.targets import TargetSource
from edgeprune.errors import DataError
from edgeprune.progress import Progress

MOST_CLASSES = 1 << 20
Known = Mapping[str, str]  # an image's name -> the digest of its pixels, from when it was checked


@dataclass(frozen=True)
class Opening:
    """How a pool is opened: for which model, and whether its images were checked before (`known`)."""

    geometry: Geometry
    memory_limit: int
    progress: Progress
    known: Known | None = None


@dataclass(frozen=True)
class Labelled:
    """A pool of images, their labels as positions in `classes`, and where they are from.

    `names` tells the images apart, the same each time; `pixels` are digests, equal for equal images. `numbered`: the
    labels are the data set's own numbers, and not places of names in an order that was chosen here.
    """

    where: str
    images: Images
    labels: Labels
    classes: tuple[str, ...]
    names: tuple[str, ...]
    pixels: tuple[str, ...]
    numbered: bool
    told: tuple[str, ...] = ()
    in_files: bool = False  # each image is a file of its own
    targets: TargetSource | None = None  # beside each image, where they are no classes


class Found(Protocol):
    """A pool that was found and not looked into yet."""

    @property
    def where(self) -> str: ...

    def files(self) -> Mapping[str, Path]:
        """The files that it consists of by name; none where it is no set of files."""
        ...

    def open(self, opening: Opening) -> Labelled:
        """Look at every image, unless that was done before.

        Raises:
            DataError: an image or label cannot be used.
        """
        ...


@dataclass(frozen=True)
class Source:
    """What a source holds: splits of its own, or one undivided pool (`whole`)."""

    train: Found | None = None
    test: Found | None = None
    whole: Found | None = None
    told: tuple[str, ...] = ()

    def for_training(self) -> Found | None:
        return self.train or self.whole

    def for_testing(self) -> Found | None:
        return self.test or self.whole


@dataclass(frozen=True)
class FolderPool:
    """Image files of class folders."""

    listing: Listing
    numbered: bool = False

    @property
    def where(self) -> str:
        return str(self.listing.root)

    def files(self) -> Mapping[str, Path]:
        root = self.listing.root
        return {_name_in(root, path): path for path in self.listing.files}

    def open(self, opening: Opening) -> Labelled:
        listing, files, told = self.listing, self.files(), self.listing.told()
        if opening.known is not None:
            pixels = tuple(opening.known.get(name, "") for name in files)
        else:
            checked = check_files(listing.root, listing.files, progress=opening.progress)
            for path, one in zip(listing.files, checked, strict=True):
                check_shape(opening.geometry, one.width, one.height, str(path))
            pixels = tuple(one.pixels for one in checked)
            told += [f"in {listing.root.name}/: {said}" for said in said_of(n for one in checked for n in one.notes)]
        return Labelled(
            self.where,
            file_images(listing.files, opening.geometry, memory_limit=opening.memory_limit),
            np.array(listing.labels, np.int64),
            listing.classes,
            tuple(files),
            pixels,
            self.numbered,
            tuple(told),
            in_files=True,
        )


def check_shape(geometry: Geometry, width: int, height: int, where: str) -> None:
    """Check that images of a size can be prepared for the model.

    Raises:
        DataError: they cannot; names `where`.
    """
    try:
        geometry.check(width, height)
    except DataError as error:
        raise DataError(error.what, where=where, hint=error.hint) from error


def _name_in(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
