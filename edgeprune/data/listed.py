"""Image files and what is said of each, wherever that stands: in files beside them, in a CSV file, in a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from edgeprune.data.check import Checked, check_files
from edgeprune.data.decode import said_of
from edgeprune.data.images import Geometry, file_images
from edgeprune.data.pools import Labelled, Opening, check_shape
from edgeprune.data.split import Labels
from edgeprune.data.targets import ArrayTargets, FileTargets, TargetSource, check_target_file, read_target
from edgeprune.errors import DataError

_WORKERS = 4


@dataclass(frozen=True)
class Given:
    """What is said of a pool's images: classes, or targets in their place; see `Labelled`."""

    labels: Labels
    classes: tuple[str, ...] = ()
    numbered: bool = True
    targets: TargetSource | None = None


class Beside(Protocol):
    """What is said of image files, not looked into yet."""

    def files(self) -> Sequence[Path]:
        """Files of their own that it is in."""
        ...

    def open(self, images: Sequence[Path], checked: Sequence[Checked] | None, opening: Opening) -> Given:
        """Look at all of it.

        Args:
            images: in their order.
            checked: what each image file holds; None: all was looked at when the run was loaded.
            opening: for which model.

        Raises:
            DataError: something of it cannot be used.
        """
        ...


@dataclass(frozen=True)
class ListedPool:
    """Image files with what is said of each.

    Args:
        where: what it is from, as messages name it, and unlike that of any other pool.
        root: files that lie in it are named relative to it.
        images: the files.
        beside: what is said of them.
        index: the file that lists them, where one does.
    """

    where: str
    root: Path
    images: tuple[Path, ...]
    beside: Beside
    index: Path | None = None

    def files(self) -> Mapping[str, Path]:
        index = {} if self.index is None else {self.index.name: self.index}  # it may lie elsewhere than the images
        return index | {self._name(path): path for path in (*self.images, *self.beside.files())}

    def open(self, opening: Opening) -> Labelled:
        names = tuple(map(self._name, self.images))
        checked, told = None, list[str]()
        if opening.known is not None:
            pixels = tuple(opening.known.get(name, "") for name in names)
        else:
            checked = check_files(Path(self.where), self.images, progress=opening.progress)
            pixels = tuple(one.pixels for one in checked)
            place = self.index.name if self.index is not None else f"{self.root.name}/"
            told = [f"in {place}: {said}" for said in said_of(note for one in checked for note in one.notes)]
            for path, one in zip(self.images, checked, strict=True):
                check_shape(opening.geometry, one.width, one.height, str(path))
        given = self.beside.open(self.images, checked, opening)
        return Labelled(
            self.where,
            file_images(self.images, opening.geometry, memory_limit=opening.memory_limit),
            given.labels,
            given.classes,
            names,
            pixels,
            given.numbered,
            tuple(told),
            in_files=True,
            targets=given.targets,
        )

    def _name(self, path: Path) -> str:
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()


@dataclass(frozen=True)
class Classes:
    """One class an image: its place in the names."""

    labels: tuple[int, ...]
    classes: tuple[str, ...]
    numbered: bool

    def files(self) -> Sequence[Path]:
        return ()

    def open(self, images: Sequence[Path], checked: Sequence[Checked] | None, opening: Opening) -> Given:  # noqa: ARG002
        return Given(np.array(self.labels, np.int64), self.classes, self.numbered)


@dataclass(frozen=True)
class Rows:
    """A row of numbers an image, (images, n): 0 or 1 for each of the classes, or values."""

    values: npt.NDArray[Any]
    classes: tuple[str, ...] = ()

    def files(self) -> Sequence[Path]:
        return ()

    def open(self, images: Sequence[Path], checked: Sequence[Checked] | None, opening: Opening) -> Given:  # noqa: ARG002
        return Given(np.zeros(len(images), np.int64), self.classes, targets=ArrayTargets(self.values))


@dataclass(frozen=True)
class Files:
    """A file an image: a mask, or a map of values."""

    beside: tuple[Path, ...]
    kind: Literal["mask", "values"]

    def files(self) -> Sequence[Path]:
        return self.beside

    def open(self, images: Sequence[Path], checked: Sequence[Checked] | None, opening: Opening) -> Given:
        found = FileTargets.found(self.beside, opening.geometry if self.kind == "mask" else None)
        if checked is not None:
            if self.kind == "values" and read_target(self.beside[0], None).ndim > 1:
                for path, one in zip(images, checked, strict=True):
                    check_not_resized(opening.geometry, one.width, one.height, str(path))
            found = self._looked_into(found, [(one.width, one.height) for one in checked], opening)
        return Given(np.zeros(len(images), np.int64), targets=found)

    def _looked_into(self, found: FileTargets, sizes: list[tuple[int, int]], opening: Opening) -> FileTargets:
        """Every target read once."""
        numbers: dict[int, str] = {}
        first: tuple[tuple[int, ...], Path] | None = None
        with ThreadPoolExecutor(_WORKERS) as pool:
            reading = pool.map(lambda file, size: check_target_file(file, size, found.geometry), self.beside, sizes)
            for done, (file, (there, shape)) in enumerate(zip(self.beside, reading, strict=True), start=1):
                for number in there:
                    numbers.setdefault(number, str(file))
                first = first or (shape, file)
                if shape != first[0]:
                    raise DataError(
                        f"the target is of shape {shape}, that of {first[1].name} {first[0]}",
                        where=str(file),
                        hint="give all targets one shape",
                    )
                opening.progress.update(f"targets in {self.beside[0].parent.name}/", done, len(self.beside))
        return FileTargets(found.files, found.geometry, found.states, numbers)


def check_not_resized(geometry: Geometry, width: int, height: int, where: str) -> None:
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
