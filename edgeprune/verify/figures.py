"""A task's figures of some images, held against limits: agreement, the metric, and how much of it is lost.

Where the metric is the share of images that are right, intervals are exact (`sampled.py`). Other metrics, and shares
within an image, have an interval from images drawn again and again (Efron, Annals of Statistics 7, 1979: the
bootstrap's percentiles).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeprune.errors import ModelError
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.task import Rows, Shares
from edgeprune.verify.chance import guesses, tells
from edgeprune.verify.intervals import Interval, drop_interval, share_interval
from edgeprune.verify.limits import Limit, at_least, at_most, info
from edgeprune.verify.sampled import drop_check, held, share_check
from edgeprune.verify.verdict import Check

DRAWS = 400
FEWEST = 20  # images, whose draws tell something of other images


def agreement_check(objective: Objective, same: Shares, limit: Limit, *, why: str) -> Check:
    """How far the answers to each image are the same, (images,), against a least share."""
    name = objective.task.agreement_name
    if _yes_or_no(same):
        return share_check(name, same > 0.5, limit, why=why.format(count=int(same.sum()), images=len(same)))
    found = drawn_interval(same, lambda some: float(some.mean()))
    words = f"{100 * found.value:.2f} % alike, the mean over {len(same)} test images"
    check = at_least(name, found.value, limit, unit="share", why=words)
    return held(check, found, len(same), room=1 - limit if limit else 0.0, fewest=FEWEST)


def metric_interval(objective: Objective, rows: Rows) -> Interval:
    """The metric of some images, from finished rows, and its 95 % interval."""
    if (right := objective.right(rows)) is not None:
        return share_interval(int(right.sum()), len(right))
    return drawn_interval(rows, objective.measured)


def change_interval(objective: Objective, before: Rows, after: Rows) -> Interval:
    """How much of the metric is lost between two models on the same images, and its 95 % interval."""
    one, other = objective.right(before), objective.right(after)
    if one is not None and other is not None:
        return drop_interval(int((one & ~other).sum()), int((other & ~one).sum()), len(one))
    width = before.shape[1]

    def lost(both: Rows) -> float:
        return objective.metric.lost(objective.measured(both[:, :width]), objective.measured(both[:, width:]))

    return drawn_interval(np.concatenate([before, after], axis=1), lost)


def metric_check(objective: Objective, rows: Rows, *, untrained: bool) -> Check:
    """The metric, told without a limit; but a file that guesses fails, and nothing passes of images that could not
    tell."""
    metric, found = objective.metric, metric_interval(objective, rows)
    right = objective.right(rows)
    if right is not None:
        why = f"right on {right.sum()} of {len(rows)} test images"
    else:
        why = f"{metric.told(found.value)} on {len(rows)} test images"
    check = info(metric.name, found.value, unit=metric.unit or "of the metric", why=why)
    check = check.model_copy(update={"interval": (found.low, found.high)})
    if untrained or (trouble := ignorance(objective, rows)) is None:
        return check
    said, outcome = trouble
    return check.model_copy(update={"outcome": outcome, "why": f"{why}; {said}"})


def ignorance(objective: Objective, rows: Rows) -> tuple[str, str] | None:
    """Why answers cannot be called knowledge of the images, and the outcome of that: undecided where so few images
    could not tell, fail where the answers are no better than some that do not look at the image."""
    few = ("chance could do as well on so few, of so few classes: name more test images", "undecided")
    poor = ("no better than guessing: prune less, or train longer", "fail")
    if objective.task.names_classes:
        named, labels = (column.astype(np.int64) for column in rows[:, :2].T)
        return few if not tells(labels) else poor if guesses(named, labels) else None
    if len(rows) < FEWEST:
        return few
    chance, best = objective.chance(rows), objective.best(rows)
    if chance is None:
        return None
    if best is not None and not objective.metric.is_better(best, chance):
        return few
    found = metric_interval(objective, rows)
    if not found.founded:
        return few
    surely = found.low if objective.metric.higher_is_better else found.high
    return None if objective.metric.is_better(surely, chance) else poor


def lost_check(objective: Objective, name: str, before: Rows, after: Rows, limit: Limit) -> Check:
    """How much of the metric is lost on the same images, against the most that may be."""
    one, other, metric = objective.right(before), objective.right(after), objective.metric
    said = f"{metric.told(objective.measured(before))} before, {metric.told(objective.measured(after))} in the file"
    if one is not None and other is not None:
        lost, gained = (one & ~other).sum(), (other & ~one).sum()
        why = f"{said}: {lost} images lost, {gained} gained of {len(one)}"
        return drop_check(name, one, other, limit, why=why)
    found = change_interval(objective, before, after)
    unit = "share" if metric.unit == "share" or metric.drop == "relative" else metric.unit
    share = " (of what it was before)" if metric.drop == "relative" else ""
    check = at_most(name, found.value, limit, unit=unit, why=f"{said}{share}, on {len(before)} images")
    return held(check, found, len(before), room=limit or 0.0, fewest=FEWEST)


def drawn_interval(rows: npt.NDArray[np.float64], figure: Callable[[npt.NDArray[np.float64]], float]) -> Interval:
    """A figure of images and its 95 % interval, from as many images drawn with replacement, 400 times; the same each
    time."""
    value, random = figure(rows), np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        with np.errstate(invalid="ignore", divide="ignore"):
            try:
                draws.append(figure(rows[random.integers(0, len(rows), len(rows))]))
            except (ModelError, ValueError):  # nothing to measure among these images
                continue
    finite = [one for one in draws if np.isfinite(one)]
    low, high = np.quantile(finite or [value], [0.025, 0.975])
    return Interval(value, min(value, float(low)), max(value, float(high)), founded=len(finite) == DRAWS)


def _yes_or_no(same: Shares) -> bool:
    return bool(((same == 0) | (same == 1)).all())
