"""Class names and their order: what tells which of a model's outputs a name stands for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeprune.errors import DataError, listed
from edgeprune.progress import Progress

if TYPE_CHECKING:
    from edgeprune.data.pools import Labelled
    from edgeprune.models.spec import ModelSpec

_SYNSET = re.compile(r"n\d{8}")
_LABELS = "name all classes in the order of the model's outputs: model.labels (a list, or a file of one name a line)"
_IMAGENET_1K = 1000
_SAME: Mapping[str, Callable[[str], str]] = {
    "their Unicode form (NFC and NFD)": lambda name: unicodedata.normalize("NFC", name),
    "spaces": lambda name: "".join(name.split()),
    "capital letters": str.casefold,
}


def text_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted as text, as torchvision's ImageFolder has it: 1, 10, 2."""
    return tuple(sorted(names))


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted with the numbers in them as numbers and without regard to case, as timm has it: 1, 2, 10."""
    return tuple(sorted(sorted(names), key=_natural))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Words and numbers in turn; a number counts by its length, then its digits, so that none is too long."""
    parts = re.split(r"([0-9]+)", name.lower())
    parts[1::2] = [part.lstrip("0") for part in parts[1::2]]
    return [(0, len(part), part) if place % 2 else (1, 0, part) for place, part in enumerate(parts)]


def class_order(pools: Mapping[str, Labelled], spec: ModelSpec, *, where: str, progress: Progress) -> tuple[str, ...]:
    """The name of each output of the model, as far as data know them: a class's index is its place here.

    The model's own names decide, where they are known (`spec.labels`, or ImageNet's synsets). Else labels that are the
    data set's own numbers are such places, and class folders stand in text order.

    Raises:
        DataError: the model's names do not hold a class of the data; there are more classes than outputs; or there
            are fewer, and nothing says which outputs they stand for; or parts of the data have other classes than the
            rest.
    """
    widest = max(pools.values(), key=lambda pool: (len(pool.classes), pool.numbered))
    if not spec.labels and len(widest.classes) > max(2, spec.num_classes):
        raise DataError(
            f"the labels do not fit the classifier: the data has {len(widest.classes)} classes, "
            f"the model answers {spec.num_classes}",
            where=where,
            hint=_why_more(widest),
        )
    if spec.labels:
        for part, pool in pools.items():
            _check_labelled(part, pool, spec.labels)
        return spec.labels
    names = {name for pool in pools.values() for name in pool.classes}
    if (synsets := imagenet_names(spec)) and names <= set(synsets):
        progress.say(
            f"the class folders are named as ImageNet's synsets: their order is that of its {len(synsets)} classes"
        )
        return synsets
    for part, pool in pools.items():
        if strange := [name for name in pool.classes if name not in widest.classes]:
            raise DataError(
                f"the {part} images have classes that the others have not: {listed(strange, 5)}",
                where=pool.where,
                hint=f"{_look_alike(strange, widest.classes)}use the same class names in all folders; or {_LABELS}",
            )
    if widest.numbered:
        if len(widest.classes) < max(2, spec.num_classes):
            progress.say(
                f"labels go up to {len(widest.classes) - 1}, and the model answers {spec.num_classes} classes: label n "
                "is taken for output n"
            )
        return widest.classes
    order = text_order(widest.classes)
    if len(order) < max(2, spec.num_classes):
        raise DataError(
            f"the data has {len(order)} classes, the model answers {spec.num_classes}, and nothing says which output "
            f"stands for which of them",
            where=where,
            hint=_LABELS,
        )
    _warn_of_natural_order(order, progress)
    return order


def _why_more(pool: Labelled) -> str:
    if pool.numbered and len(pool.labels) and int(pool.labels.min()) > 0:
        return f"no label is below {int(pool.labels.min())}: number the classes from 0, in the order of the outputs"
    return "set num_classes in [model], or choose other data"


def _look_alike(strange: Sequence[str], known: Iterable[str]) -> str:
    """In what names differ that look the same, in words."""
    unlike = set(known)
    for words, same in _SAME.items():
        if {same(name) for name in strange} & {same(name) for name in unlike}:
            return f"names differ in {words} alone ({', '.join(map(ascii, strange[:3]))}): rename the folders. Or "
    return ""


def imagenet_names(spec: ModelSpec) -> tuple[str, ...]:
    """The synset of each output, where the number of outputs is that of ImageNet (or, for timm's, of a set of it)."""
    if spec.num_classes != _IMAGENET_1K and not spec.source.startswith("timm:"):
        return ()
    from edgeprune.models.timm_import import import_timm

    data = import_timm().data
    subset = data.infer_imagenet_subset({"num_classes": spec.num_classes})
    return tuple(data.ImageNetInfo(subset).label_names()) if subset is not None else ()


def tell_missing(part: str, order: Sequence[str], labels: Iterable[int], progress: Progress) -> None:
    """Say which classes have no image in a part, unless they are most of them."""
    there = set(labels)
    missing = [name for place, name in enumerate(order) if place not in there]
    if missing:
        progress.say(f"no {part} image of {len(missing)} of {len(order)} classes: {listed(missing, 5)}")


def places_of(pool: Labelled, order: Sequence[str]) -> dict[int, int]:
    """From a pool's labels to places in the order: by name, or as they are where they are plain numbers."""
    if _is_plain(pool) and not set(pool.classes) <= set(order):
        return {number: number for number in range(len(pool.classes))}
    place = {name: index for index, name in enumerate(order)}
    return {number: place[name] for number, name in enumerate(pool.classes)}


def _check_labelled(part: str, pool: Labelled, labels: Sequence[str]) -> None:
    strange = [name for name in pool.classes if name not in set(labels)]
    if not strange or (_is_plain(pool) and len(pool.classes) <= len(labels)):
        return
    raise DataError(
        f"the {part} images have classes that the model's {len(labels)} labels do not hold: {listed(strange, 5)}",
        where=pool.where,
        hint=f"{_look_alike(strange, labels)}write them in model.labels as the data name them",
    )


def _is_plain(pool: Labelled) -> bool:
    """Whether a pool's classes have numbers and no names."""
    return pool.numbered and all(name == str(place) for place, name in enumerate(pool.classes))


def _warn_of_natural_order(order: Sequence[str], progress: Progress) -> None:
    natural = natural_order(order)
    if tuple(order) == natural:
        return
    place = next(i for i, (one, two) in enumerate(zip(order, natural, strict=True)) if one != two)
    shown = max(0, min(place - 1, len(order) - 4))
    progress.say(
        "WARNING: the order of the classes is a guess. As text, as torchvision has it and as is taken here: "
        f"{_cut(order, shown)}; by numbers, as timm has it: {_cut(natural, shown)}. If the model was trained with "
        f"another order, every figure is wrong: {_LABELS}"
    )


def _cut(names: Sequence[str], begin: int) -> str:
    before, after = ("..., " if begin else ""), (", ..." if begin + 4 < len(names) else "")
    return f"{before}{', '.join(names[begin : begin + 4])}{after}"
