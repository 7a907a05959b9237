"""Other ways to read the same images and labels: where one of them fits a model far better, the settings are wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.data.classes import natural_order, text_order
from edgeprune.data.split import Split
from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.verify.chance import Numbers

Pixels = npt.NDArray[np.float32]  # (N, C, H, W), 0 to 255

_LISTED = 20  # classes in a line for the recipe
_PER_CLASS = 3  # images of each class that an order is worked out from, on average
_NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "pixels only scaled to 0..1": ((0.0,), (1.0,)),
    "pixels from -1 to 1": ((0.5,), (0.5,)),
    "ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "pixels from 0 to 255, not scaled": ((0.0,), (1 / 255,)),
}
_MNIST = ("MNIST's mean and std", ((0.1307,), (0.3081,)))
_CAFFE = (123.68 / 255, 116.779 / 255, 103.939 / 255)  # mean of R, G, B


@dataclass(frozen=True)
class Order:
    """One way to number the classes: `places[label]` is the model's class for each of the split's labels."""

    name: str
    places: Numbers
    advice: str


@dataclass(frozen=True)
class View:
    """One way to make a model's input of pixels (N, C, H, W), 0 to 255."""

    name: str
    make: Callable[[Pixels], Pixels]
    advice: str
    changes: int = 1  # how many things are otherwise than in the recipe


def orders_of(classes: Sequence[str], spec: ModelSpec) -> Iterator[Order]:
    """Other numberings of the classes that a model of so many classes can have been trained with."""
    given = np.arange(len(classes), dtype=np.int64)
    seen = {given.tobytes()}
    for order in _orders(classes, given):
        fits = order.places.min(initial=0) >= 0 and order.places.max(initial=0) < spec.num_classes
        if fits and order.places.tobytes() not in seen:
            seen.add(order.places.tobytes())
            yield order


def _orders(classes: Sequence[str], given: Numbers) -> Iterator[Order]:
    for name, ordered in (("natural", natural_order(classes)), ("text", text_order(classes))):
        places = np.array([ordered.index(one) for one in classes], np.int64)
        yield Order(f"with the classes in {name} order", places, _labels_line(ordered))
    if all(re.fullmatch(r"[0-9]{1,6}", one) for one in classes):
        numbers = np.array([int(one) for one in classes], np.int64)
        yield Order("with each class's name as its number", numbers, _labels_hint())
        yield Order("with each class's name, less 1, as its number", numbers - 1, _labels_hint())
    background = "the model's first class is none of the data's: " + _labels_line(["background", *classes])
    yield Order("with all class numbers one higher", given + 1, background)
    yield Order("with all class numbers one lower", given - 1, "number the labels from 0")


def found_order(named: Numbers, labels: Numbers, classes: Sequence[str], spec: ModelSpec) -> Order | None:
    """The numbering under which most answers are right, whatever it is; None where there are too few images to tell.

    Only where two classes or more move, and the model gives most images of each that moves one and the same answer.
    """
    from scipy.optimize import linear_sum_assignment

    if len(labels) < _PER_CLASS * len(classes):
        return None
    present = np.unique(labels)
    counts = np.zeros((len(classes), spec.num_classes), np.int64)
    np.add.at(counts, (labels, named), 1)
    _, columns = linear_sum_assignment(-counts[present])
    places = np.arange(len(classes), dtype=np.int64)
    places[present] = columns
    moved = np.flatnonzero(places != np.arange(len(classes)))
    if len(moved) < 2 or any(2 * counts[one, places[one]] <= counts[one].sum() for one in moved):
        return None
    told = [f"images of `{classes[one]}` are named class {places[one]}, not {one}" for one in moved[:3]]
    more = f" and {len(moved) - 3} more like that" if len(moved) > 3 else ""
    return Order("with the classes in another order", places, f"{'; '.join(told)}{more}: {_labels_hint()}")


def views_of(preprocessing: Preprocessing, channels: int) -> Iterator[View]:
    """Other preprocessings that a model of so many channels can have been trained with."""
    own = _normalizer(preprocessing.mean, preprocessing.std)
    if channels == 3:
        swap = "the model was trained on BGR: let a factory flip the channels, `x.flip(1)`, before it"
        yield View("with the colours as BGR", lambda pixels: own(_swapped(pixels)), swap)
        caffe = _normalizer(_CAFFE, (1 / 255,) * 3)
        yield View(
            "with the colours as BGR, from 0 to 255, less their mean",
            lambda pixels: _swapped(caffe(pixels)),
            f"{swap}; {_normal_line(_CAFFE, (1 / 255,) * 3)}",
            changes=2,
        )
    named = {**_NORMALIZATIONS, **({_MNIST[0]: _MNIST[1]} if channels == 1 else {})}
    for name, (mean, std) in named.items():
        mean_, std_ = _for_channels(mean, channels), _for_channels(std, channels)
        if not (np.allclose(mean_, preprocessing.mean) and np.allclose(std_, preprocessing.std)):
            yield View(f"with {name}", _normalizer(mean_, std_), f"give {_normal_line(mean_, std_)}")
    inverted = "the model was trained on negatives: let a factory or the data turn the images' brightness around"
    yield View("with dark and bright exchanged", lambda pixels: own(255 - pixels), inverted)


def pixels_of(split: Split) -> Pixels:
    """The images of a split before they are normalised."""
    return split.images.pixels(split.indices).astype(np.float32)


def _normalizer(mean: Sequence[float], std: Sequence[float]) -> Callable[[Pixels], Pixels]:
    mean_, std_ = (np.array(values, np.float32)[None, :, None, None] for values in (mean, std))
    return lambda pixels: np.divide(pixels / 255 - mean_, std_, dtype=np.float32)


def _swapped(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _normal_line(mean: Sequence[float], std: Sequence[float]) -> str:
    texts = (", ".join(f"{value:.6g}" for value in values) for values in (mean, std))
    return "model.mean = [{}] and model.std = [{}]".format(*texts)


def _labels_line(names: Sequence[str]) -> str:
    if len(names) > _LISTED:
        return f"give model.labels in this order: {', '.join(names[:5])}, ... ({len(names)} names)"
    return f"give model.labels = {json.dumps(list(names), ensure_ascii=False)}"


def _labels_hint() -> str:
    return "give model.labels, the class names in the order in which the model was trained"
