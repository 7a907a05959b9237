"""What the unpruned model knows of the test images, by its task: a classifier's alarm, or that of any other metric."""

from __future__ import annotations

import torch

from edgeprune.data.split import Split
from edgeprune.models.modes import evaluating
from edgeprune.models.spec import Model
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import ModelSection
from edgeprune.tasks.classification import Classification
from edgeprune.tasks.objective import Objective
from edgeprune.verify.alarm import Knowledge, check_knowledge, claimed_accuracy
from edgeprune.verify.metric_alarm import KnownMetric, check_metric

LOOKED_AT = 8  # images of a first look


def check_known(
    model: Model, test: Split, section: ModelSection, objective: Objective, *, progress: Progress = SILENT
) -> Knowledge | KnownMetric:
    """See that the task can read the model's answers and the data's targets, measure the model, and refuse it where
    another setting has to be wrong.

    Raises:
        ModelError, DataError: what does not fit, or what has to be wrong.
    """
    images, targets = next(iter(test.take(LOOKED_AT).batches(LOOKED_AT)))
    with evaluating(model.module), torch.no_grad():
        objective.check(model.module(images), targets)
    if not isinstance(objective.task, Classification):
        return check_metric(model, test, section, objective, progress=progress)
    claimed = claimed_accuracy(model.loaded.facts) if model.loaded is not None else None
    return check_knowledge(model, test, section, claimed=claimed, objective=objective, progress=progress)
