"""The alarm at load: what the unpruned model knows of the test images, and a refusal where that cannot be right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeprune.data.split import Split
from edgeprune.errors import DataError, ModelError
from edgeprune.models.spec import Model
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import ModelSection
from edgeprune.tasks.classification import classes_named
from edgeprune.tasks.objective import CLASSIFYING, Objective, tensors
from edgeprune.tasks.task import only_tensor
from edgeprune.training.accuracy import predict
from edgeprune.verify.alternatives import Order, found_order, orders_of, pixels_of, views_of
from edgeprune.verify.chance import LEVEL, Numbers, near_chance, tells
from edgeprune.verify.intervals import Interval, share_interval

Rights = npt.NDArray[np.bool_]

IMAGES = 1000  # test images at most, spread over the classes
IMAGES_UNTRAINED = 100  # where nothing depends on the answer
SCREENED, COMPARED = 100, 300  # images on which other preprocessings are tried: all of them, then the promising ones
BATCH = 64

FAR = 0.05  # below what the recipe or the checkpoint says
BETTER = {"order": 0.02, "view": 0.05}  # by so much another order of classes, or preprocessing, has to do better
SURE = {"order": LEVEL, "view": LEVEL / 10}  # chance does so at most this often; views are many, and some fit by luck

_GUESSING = "no better than guessing"

_CLAIMS = ("acc", "acc1", "accuracy", "top1", "top1_acc", "prec1", "val_acc", "val_acc1", "val_accuracy", "val_top1")
_BEST = tuple(f"best_{name}" for name in _CLAIMS)


@dataclass(frozen=True)
class Knowledge:
    """How many test images the unpruned model names rightly."""

    right: int
    images: int

    @property
    def interval(self) -> Interval:
        return share_interval(self.right, self.images)

    @property
    def record(self) -> dict[str, float | int]:
        """For a stage's result."""
        between = self.interval
        return {
            "right": self.right,
            "images": self.images,
            "share": between.value,
            "low": between.low,
            "high": between.high,
        }

    def __str__(self) -> str:
        low, high = (100 * side for side in (self.interval.low, self.interval.high))
        return (
            f"right on {self.right} of {self.images} test images, "
            f"{100 * self.interval.value:.1f} % (95 % interval {low:.1f} to {high:.1f} %)"
        )


@dataclass(frozen=True)
class _Better:
    """Another reading of the same images that fits far better."""

    words: str
    advice: str
    right: int
    images: int
    gain: float
    changes: int  # how many things were wrong at once, if this is right

    def __str__(self) -> str:
        return f"{self.words} it is right on {100 * self.right / self.images:.1f} % of {self.images} images"


def refuse_random(section: ModelSection) -> None:
    """Refuse random weights that are not meant to be such.

    Raises:
        ModelError: a timm model without weights, and the recipe does not say that it knows nothing.
    """
    given = section.pretrained or section.checkpoint is not None or "checkpoint_path" in section.arguments
    if section.name is None or given or section.untrained:
        return
    raise ModelError(
        f"{section.name} has random weights: neither `pretrained` nor `checkpoint` is given",
        where="model",
        hint="give model.pretrained = true (--pretrained) or model.checkpoint (--checkpoint); if it is meant to know "
        "nothing yet: model.untrained = true (--untrained)",
    )


def check_knowledge(
    model: Model,
    test: Split,
    section: ModelSection,
    *,
    claimed: float | None = None,
    objective: Objective = CLASSIFYING,
    progress: Progress = SILENT,
) -> Knowledge:
    """Measure the unpruned model on test images, and refuse it where another setting has to be wrong.

    Args:
        test: nothing is chosen or trained on it here: it is only measured.
        section: `untrained` allows any answer; `accuracy` is what the recipe expects, before `claimed`.
        claimed: the accuracy (0 to 1) that the checkpoint says it had.
        objective: of a classifier; which output holds its logits.
        progress: is told the accuracy, and how far its measuring is.

    Raises:
        ModelError: the model answers NaN; it is near chance; it is far below what was claimed; or another order of the
            classes or preprocessing fits far better.
        DataError: there are no test images.
    """
    if len(test) == 0:
        raise DataError("the test split has no images", hint="name test images in [data]")
    chosen = test.take(IMAGES_UNTRAINED if section.untrained else IMAGES)
    named = _named(model, chosen, objective, progress)
    known = Knowledge(int((named == chosen.labels).sum()), len(chosen))
    progress.say(f"the unpruned model is {known}")
    if section.untrained:
        return known
    expected = section.accuracy if section.accuracy is not None else claimed
    if section.accuracy is not None and not _far_below(known, section.accuracy):
        return known  # the recipe expects just that
    if expected is not None and _far_below(known, expected):
        whose = "the recipe (model.accuracy)" if section.accuracy is not None else "the checkpoint"
        trouble = f"far below the {100 * expected:.1f} % that {whose} says"
    elif not tells(chosen.labels):
        few = f"{len(chosen)} test images of these classes are too few to tell whether it knows them"
        progress.say(f"{few}: the verdict will not be a PASS")
        return known
    elif near_chance(named, chosen.labels):
        trouble = _GUESSING
    else:
        trouble = ""
    better = _best(model, chosen, named, objective, progress)
    if trouble or better:
        raise _refusal(model, section, known, trouble, better)
    return known


def claimed_accuracy(facts: Mapping[str, object]) -> float | None:
    """The accuracy (0 to 1) that a checkpoint's scalar entries state; None where no clear name states one.

    timm's `metric` counts where it can only be a percentage: below 1 it may be anything, a loss too.
    """
    plain = {name.lower().replace("-", "_").replace("@", ""): value for name, value in facts.items()}
    for name in (*_BEST, *_CLAIMS, "metric"):
        value = plain.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
            continue
        if value > 1:
            return value / 100
        if name != "metric":
            return float(value)
    return None


def _far_below(known: Knowledge, expected: float) -> bool:
    upper = share_interval(known.right, known.images, z=2.5758293035489).high  # of 99 %
    return expected > upper and expected - known.interval.value > FAR


def _named(model: Model, split: Split, objective: Objective, progress: Progress) -> Numbers:
    found: list[Numbers] = []
    broken = done = 0
    for images, _ in split.batches(BATCH):
        outputs = predict(model.module, images)
        broken += int(np.any([~np.isfinite(one).reshape(len(one), -1).all(axis=1) for one in outputs], axis=0).sum())
        found.append(_classes(outputs, objective))
        done += len(images)
        progress.update("accuracy of the unpruned model", done, len(split))
    if broken:
        raise ModelError(
            f"the model answers NaN or infinity to {broken} of {len(split)} test images",
            where=model.spec.source,
            hint="check its weights, model.mean and model.std",
        )
    return np.concatenate(found)


def _classes(outputs: Sequence[npt.NDArray[np.float32]], objective: Objective) -> Numbers:
    logits = only_tensor(objective.read(tensors(outputs)), objective.name)
    return np.asarray(classes_named(logits).numpy(), dtype=np.int64)


def _best(model: Model, chosen: Split, named: Numbers, objective: Objective, progress: Progress) -> _Better | None:
    """The reading of the images that fits best, where that is far better than the recipe's."""
    right = named == chosen.labels
    found = list(_better_orders(named, chosen, model, right, "", "", 0))
    if right.mean() <= 1 - BETTER["view"]:
        found += _better_views(model, chosen, named, objective, progress)
    return max(found, key=lambda one: (one.gain, -one.changes), default=None)


def _better_orders(
    named: Numbers, chosen: Split, model: Model, before: Rights, view: str, advice: str, changes: int
) -> Iterator[_Better]:
    """Readings by other orders of the classes, of the answers to one view of the images."""
    orders: list[Order] = list(orders_of(chosen.classes, model.spec))
    if (order := found_order(named, chosen.labels, chosen.classes, model.spec)) is not None:
        orders.append(order)
    kind = "view" if view else "order"
    for order in orders:
        after = named == order.places[chosen.labels]
        if surely_better(before, after, kind):
            words = f"{view}, and {order.name}" if view else order.name
            advised = f"{advice}; {order.advice}" if view else order.advice
            yield _better(words, advised, before, after, changes=changes + 1)


def _better_views(
    model: Model, chosen: Split, named: Numbers, objective: Objective, progress: Progress
) -> list[_Better]:
    found: list[_Better] = []
    views = list(views_of(model.spec.preprocessing, model.spec.input_size[0]))
    for count, last in ((SCREENED, False), (COMPARED, True)):
        part = chosen.take(count)
        before = named[np.isin(chosen.indices, part.indices)] == part.labels
        pixels, promising, found = pixels_of(part), [], []
        for number, view in enumerate(views):
            progress.update("other preprocessings of the same images", number, len(views))
            parts = [predict(model.module, view.make(pixels[i : i + BATCH])) for i in range(0, len(pixels), BATCH)]
            again = np.concatenate([_classes(part, objective) for part in parts])
            after = again == part.labels
            better = list(_better_orders(again, part, model, before, view.name, view.advice, view.changes))
            if surely_better(before, after, "view"):
                better.append(_better(view.name, view.advice, before, after, changes=view.changes))
            found += better
            if better or after.mean() - before.mean() >= BETTER["view"] / 2:
                promising.append(view)
        views = promising
        if last or not views or len(part) == len(chosen):
            break
    return found


def _better(words: str, advice: str, before: Rights, after: Rights, *, changes: int) -> _Better:
    return _Better(words, advice, int(after.sum()), len(after), float(after.mean() - before.mean()), changes)


def surely_better(before: Rights, after: Rights, kind: str) -> bool:
    """Whether more is right, by so much, and not by chance: the exact sign test on the images that differ."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    if gained <= lost or (gained - lost) / len(before) < BETTER[kind]:
        return False
    changed = gained + lost
    chance = sum(math.comb(changed, k) for k in range(gained, changed + 1)) / 2**changed
    return chance < SURE[kind]


def _refusal(model: Model, section: ModelSection, known: Knowledge, trouble: str, better: _Better | None) -> ModelError:
    untrained = "If it is meant to know so little: model.untrained = true (--untrained)"
    insist = f"If the recipe is right all the same: model.accuracy = {known.interval.value:.3g}"
    otherwise = untrained if trouble == _GUESSING else insist
    if better is not None:
        return ModelError(
            f"the unpruned model is {known}: {trouble + '; ' if trouble else ''}{better}",
            where=model.spec.source,
            hint=f"{better.advice}. {otherwise}",
        )
    reasons = ["the weights", "the order of the classes (model.labels)", "model.mean and model.std"]
    if section.pretrained and section.num_classes is not None:
        reasons[0] = "the last layer (timm's published weights leave it random where num_classes is another)"
    return ModelError(
        f"the unpruned model is {known}: {trouble}",
        where=model.spec.source,
        hint=f"check {', '.join(reasons)}; other orders of the classes, BGR, other means and stds, and negatives were "
        f"tried, and none is surely better. {otherwise}",
    )
