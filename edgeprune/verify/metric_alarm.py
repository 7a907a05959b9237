"""The alarm at load for other tasks than classification: the unpruned model's metric on test images, and a refusal
where that cannot be right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeprune.data.split import Split
from edgeprune.errors import DataError, ModelError
from edgeprune.models.spec import Model
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import ModelSection
from edgeprune.tasks.objective import Objective, tensors
from edgeprune.tasks.task import Rows
from edgeprune.training.accuracy import predict
from edgeprune.verify.alternatives import pixels_of, views_of
from edgeprune.verify.figures import change_interval, ignorance, metric_interval
from edgeprune.verify.intervals import Interval

IMAGES = 500  # test images at most
IMAGES_UNTRAINED = 50  # where nothing depends on the answer
COMPARED = 100  # images on which other preprocessings are tried
BATCH = 32
FAR = 0.05  # below what the recipe says: of a share in points, of another metric as a part of it
BETTER = 0.05  # by so much another preprocessing has to do better, alike


@dataclass(frozen=True)
class KnownMetric:
    """The unpruned model's metric on so many test images."""

    name: str
    told: str
    interval: Interval
    images: int

    @property
    def record(self) -> dict[str, float | int | str]:
        """For a stage's result."""
        found = self.interval
        return {
            "metric": self.name,
            "images": self.images,
            "value": found.value,
            "low": found.low,
            "high": found.high,
        }

    def __str__(self) -> str:
        return f"{self.name} {self.told} on {self.images} test images"


def check_metric(
    model: Model, test: Split, section: ModelSection, objective: Objective, *, progress: Progress = SILENT
) -> KnownMetric:
    """Measure the unpruned model on test images, and refuse it where something has to be wrong.

    Args:
        section: `untrained` allows any answer; `metric` (or `accuracy`, of a metric that is a share) is what the recipe
            expects.
        objective: what answers mean.
        progress: is told the metric.

    Raises:
        ModelError: the model answers NaN; it is no better than an answer that does not look at the image; it is far
            below what the recipe says; or another preprocessing fits far better.
        DataError: there are no test images.
    """
    if len(test) == 0:
        raise DataError("the test split has no images", hint="name test images in [data]")
    chosen = test.take(IMAGES_UNTRAINED if section.untrained else IMAGES)
    rows = _rows(model, chosen, objective, progress)
    found = metric_interval(objective, rows)
    low, high = objective.metric.told(found.low), objective.metric.told(found.high)
    told = f"{objective.metric.told(found.value)} (95 % interval {low} to {high})"
    known = KnownMetric(objective.metric.name, told, found, len(chosen))
    progress.say(f"the unpruned model: {known}")
    if section.untrained:
        return known
    expected = section.metric if section.metric is not None else section.accuracy
    if expected is not None:
        if _far_below(objective, found, expected):
            raise _refused(model, known, f"far from the {objective.metric.told(expected)} that the recipe says", found)
        return known
    if (trouble := ignorance(objective, rows)) is not None:
        words, outcome = trouble
        if outcome == "fail":
            raise _refused(model, known, "no better than an answer that does not look at the image", found)
        progress.say(f"{words}: the verdict will not be a PASS")
        return known
    if objective.chance(rows) is None:
        progress.say(f"nobody knows what chance would reach in {objective.metric.name}: look at the figure yourself")
    if (better := _better_view(model, chosen, objective, progress)) is not None:
        raise _refused(model, known, better, found)
    return known


def _far_below(objective: Objective, found: Interval, expected: float) -> bool:
    metric = objective.metric
    best = found.high if metric.higher_is_better else found.low
    return metric.is_better(expected, best) and metric.lost(expected, found.value) > FAR


def _rows(model: Model, split: Split, objective: Objective, progress: Progress) -> Rows:
    parts: list[Rows] = []
    done = broken = 0
    for images, targets in split.batches(BATCH):
        outputs = predict(model.module, images)
        broken += int(np.any([~np.isfinite(one).reshape(len(one), -1).all(axis=1) for one in outputs], axis=0).sum())
        done += len(images)
        progress.update(f"{objective.metric.name} of the unpruned model", done, len(split))
        if not broken:
            parts.append(objective.rows(tensors(outputs), targets))
    if broken:
        raise ModelError(
            f"the model answers NaN or infinity to {broken} of {len(split)} test images",
            where=model.spec.source,
            hint="check its weights, model.mean and model.std",
        )
    return objective.finished(np.concatenate(parts))


def _better_view(model: Model, chosen: Split, objective: Objective, progress: Progress) -> str | None:
    """Another preprocessing of the same images that is surely better, in words."""
    if not chosen.has_pixels:
        return None
    part = chosen.take(COMPARED)
    (targets,) = [given for _, given in part.batches(len(part))]
    pixels = pixels_of(part)
    views = list(views_of(model.spec.preprocessing, model.spec.input_size[0]))
    before = _rows(model, part, objective, SILENT)
    best: tuple[float, str] | None = None
    for number, view in enumerate(views):
        progress.update("other preprocessings of the same images", number, len(views))
        outputs = tensors([np.nan_to_num(one) for one in predict(model.module, view.make(pixels), BATCH)])
        after = objective.finished(objective.rows(outputs, targets))
        gain = change_interval(objective, after, before)
        if gain.low > 0 and gain.value > BETTER and (best is None or gain.value > best[0]):
            value = objective.metric.told(objective.measured(after))
            best = gain.value, f"{view.name} it reaches {value} on {len(part)} images: {view.advice}"
    return best[1] if best is not None else None


def _refused(model: Model, known: KnownMetric, trouble: str, found: Interval) -> ModelError:
    return ModelError(
        f"the unpruned model has {known}: {trouble}",
        where=model.spec.source,
        hint="check the weights, the targets, the settings of [task], model.mean and model.std. If it is meant to know "
        f"so little: model.untrained = true; if the recipe is right all the same: model.metric = {found.value:.3g}",
    )
