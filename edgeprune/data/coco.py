"""`coco:FILE.json[@FOLDER]`: images with annotated objects, as COCO's instances_*.json have them.

It gives the classes that an image has (one or several), or masks painted from the objects' polygons and RLE.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.data.folders import NoData
from edgeprune.data.listed import Beside, Classes, ListedPool, Rows
from edgeprune.data.painted import Painted, Picture, Shape, painter_of
from edgeprune.data.pools import Source
from edgeprune.errors import DataError, listed
from edgeprune.recipe import TargetKind
from edgeprune.recipe.data import coco_parts

_NAMED = 3
_LISTS = ("images", "annotations", "categories")
_FORM = "it has lists `images`, `annotations` and `categories`, as COCO's instances_*.json have them"


@dataclass(frozen=True)
class Annotated:
    """What a file says: the categories' names in the order of their ids, and the images in the order of theirs."""

    path: Path
    categories: tuple[str, ...]
    pictures: tuple[Picture, ...]


def find_coco(source: str, kind: TargetKind, *, labels: tuple[str, ...] = ()) -> Source:
    """Find `coco:FILE.json[@FOLDER]`; without a folder, images lie beside the file.

    Args:
        source: as a recipe has it.
        kind: what the task needs beside an image.
        labels: the model's class names, where they are known.

    Raises:
        NoData: there is no such file.
        DataError: it is no such file, an image of it is not there, or it does not give what the task needs.
        ToolkitMissing: masks are asked for, and pycocotools is not installed.
    """
    file, folder = coco_parts(source)
    path = Path(file).expanduser()
    root = Path(folder).expanduser().absolute() if folder else path.absolute().parent
    told = read_annotated(path)
    images = _images(told, root)
    return Source(whole=ListedPool(str(path), root, images, _beside(told, kind, labels), path.absolute()))


def _beside(told: Annotated, kind: TargetKind, labels: tuple[str, ...]) -> Beside:
    if kind in ("class", "identity"):
        return _one_class(told)
    if kind == "classes":
        return _several_classes(told, labels)
    if kind == "mask":
        painter_of(told.path)
        return Painted(told.path, told.pictures, told.categories)
    raise DataError(
        "a COCO file gives classes and masks, and the task needs something else",
        where=str(told.path),
        hint="give the data as csv:FILE, as a folder, or as a data set of your own: see docs/data.md",
    )


def _one_class(told: Annotated) -> Beside:
    of = [{shape.number for shape in picture.shapes} for picture in told.pictures]
    if strange := [place for place, numbers in enumerate(of) if len(numbers) != 1]:
        shown = "; ".join(f"{told.pictures[i].name}: {_names(told, of[i])}" for i in strange[:_NAMED])
        raise DataError(
            f"{len(strange)} of {len(of)} images have objects of no or several categories: {shown}",
            where=str(told.path),
            hint='take them out of the file; or take the task "multi-label", which names all that an image has',
        )
    return Classes(tuple(min(numbers) - 1 for numbers in of), told.categories, True)


def _names(told: Annotated, numbers: set[int]) -> str:
    return listed([told.categories[number - 1] for number in sorted(numbers)]) or "none"


def _several_classes(told: Annotated, labels: tuple[str, ...]) -> Beside:
    if strange := [name for name in told.categories if labels and name not in labels]:
        raise DataError(
            f"categories are no classes of the model: {listed(strange, 5)}",
            where=str(told.path),
            hint="write model.labels as the file names its categories",
        )
    order = labels or told.categories
    values = np.zeros((len(told.pictures), len(order)), np.int64)
    for place, picture in enumerate(told.pictures):
        for shape in picture.shapes:
            values[place, order.index(told.categories[shape.number - 1])] = 1
    return Rows(values, order)


def _images(told: Annotated, root: Path) -> tuple[Path, ...]:
    paths = tuple(root / picture.name for picture in told.pictures)
    if gone := [picture.name for picture, path in zip(told.pictures, paths, strict=True) if not path.is_file()]:
        raise DataError(
            f"{len(gone)} of {len(paths)} images are not there: {listed(gone, _NAMED)}",
            where=str(root),
            hint="name the folder that the images' file_name is in: coco:FILE.json@FOLDER",
        )
    return paths


def read_annotated(path: Path) -> Annotated:
    """Read a COCO-style JSON file.

    Raises:
        NoData: there is no such file.
        DataError: it is no such file, names an image, a file or a category twice, or an annotation is of none of them.
    """
    if not path.is_file():
        raise NoData("no such JSON file", where=str(path), hint="check [data] in the recipe")
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"no JSON file that can be read: {error}", where=str(path), hint=_FORM) from error
    parts = [tree.get(name) if isinstance(tree, dict) else None for name in _LISTS]
    if not all(isinstance(part, list) and all(isinstance(one, dict) for one in part) for part in parts):
        raise DataError("it is no COCO-style file of objects", where=str(path), hint=_FORM)
    images, annotations, categories = (_Items(path, name, part or []) for name, part in zip(_LISTS, parts, strict=True))
    if not images.items or not categories.items:
        raise DataError("it has no images, or no categories", where=str(path), hint=_FORM)
    order = sorted(categories.once("id", int))
    names = dict(zip(categories.once("id", int), categories.once("name", str), strict=True))
    number_of = {category: number for number, category in enumerate(order, start=1)}
    shapes: dict[int, list[Shape]] = {image: [] for image in images.once("id", int)}
    for place, one in enumerate(annotations.items):
        image, category = annotations.get(place, "image_id", int), annotations.get(place, "category_id", int)
        if image not in shapes or category not in number_of:
            what = f"image {image}" if image not in shapes else f"category {category}"
            raise DataError(f"the annotation is of {what}, which the file does not list", where=annotations.at(place))
        crowd = bool(one.get("iscrowd", 0))
        shapes[image].append(Shape(number_of[category], one.get("segmentation"), crowd, annotations.at(place)))
    pictures = []
    for place, (id, name) in enumerate(zip(images.once("id", int), images.once("file_name", str), strict=True)):
        width, height = images.get(place, "width", int), images.get(place, "height", int)
        pictures.append(Picture(name, width, height, tuple(shapes[id])))
    return Annotated(path, tuple(names[category] for category in order), tuple(pictures))


@dataclass(frozen=True)
class _Items:
    """One of the file's lists."""

    path: Path
    name: str
    items: list[dict[str, Any]]

    def at(self, place: int) -> str:
        id = self.items[place].get("id")
        return f"{self.path}, {self.name}[{place}]" + (f" (id {id})" if isinstance(id, int) else "")

    def get(self, place: int, key: str, kind: type) -> Any:
        value = self.items[place].get(key)
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            raise DataError(f"`{key}` is {str(value)[:50]!r}, no {kind.__name__}", where=self.at(place), hint=_FORM)
        return value

    def once(self, key: str, kind: type) -> list[Any]:
        """A key of all items, in none of which it is the same as in another."""
        values = [self.get(place, key, kind) for place in range(len(self.items))]
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise DataError(
                f"{len(twice)} of `{key}` are there more than once: {listed([str(one) for one in twice], _NAMED)}",
                where=f"{self.path}, {self.name}",
                hint="give each its own",
            )
        return values
