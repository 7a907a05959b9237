"""What the unpruned model knows of the test images, by its task: a classifier's alarm, or that of any other metric."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeprune.data.split import Split
from edgeprune.models.modes import evaluating
from edgeprune.models.spec import Model
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import ModelSection
from edgeprune.tasks.objective import Objective
from edgeprune.verify.alarm import Knowledge, check_knowledge, claimed_accuracy
from edgeprune.verify.metric_alarm import KnownMetric, check_metric

LOOKED_AT = 8  # images of a first look


def check_known(
    model: Model,
    test: Split,
    section: ModelSection,
    objective: Objective,
    *,
    others: Sequence[Split] = (),
    progress: Progress = SILENT,
) -> Knowledge | KnownMetric:
    """See that the task can read the model's answers and the data's targets, measure the model, and refuse it where
    another setting has to be wrong.

    Args:
        model: the unpruned one.
        test: what it is measured on.
        section: what is said of the model.
        objective: the task.
        others: splits whose masks hold classes of the model, too.
        progress: is told what is worth knowing.

    Raises:
        ModelError, DataError: what does not fit, or what has to be wrong.
    """
    images, targets = next(iter(test.take(LOOKED_AT).batches(LOOKED_AT)))
    with evaluating(model.module), torch.no_grad():
        answers = model.module(images)
    objective.check(answers, targets)
    for split in (test, *others):
        if split.targets is not None:
            objective.check_masks(answers, split.targets.numbers)
    if not objective.task.names_classes or not test.has_pixels:  # labels that may be put in other orders
        return check_metric(model, test, section, objective, progress=progress)
    claimed = claimed_accuracy(model.loaded.facts) if model.loaded is not None else None
    return check_knowledge(model, test, section, claimed=claimed, objective=objective, progress=progress)
