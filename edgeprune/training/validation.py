"""The metric of a model on a split, as training looks at it after each epoch."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeprune.data.split import Split
from edgeprune.models.answers import as_floats
from edgeprune.models.modes import evaluating
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.task import moved
from edgeprune.training.accuracy import memory_format
from edgeprune.training.processes import Processes

BATCH = 256


def validated(module: nn.Module, split: Split, objective: Objective, processes: Processes) -> float:
    """The task's metric of a model on a split that is not empty, in every process; each looks at its part of it.

    Raises:
        DataError: an image cannot be read.
        ModelError: the task cannot read the answers, or its metric is no number.
    """
    part = processes.part_of(len(split))
    own = split.select(np.arange(len(split))[part]) if processes.count > 1 else split
    weight = next(module.parameters(), torch.empty(0))
    layout, rows = memory_format(module), []
    with evaluating(module), torch.no_grad():
        for images, targets in own.batches(BATCH):
            placed = images.to(weight.device, weight.dtype).contiguous(memory_format=layout)
            rows.append(objective.rows(as_floats(module(placed)), moved(targets, weight.device)))
    found = processes.all_rows(np.concatenate(rows) if rows else np.empty((0, 0)))
    return objective.measured(objective.finished(found))
