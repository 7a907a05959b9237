"""What a model answers, how often it is right, and the statistics of its batch norms."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.data.split import Split
from edgeprune.errors import DataError
from edgeprune.models.answers import outputs_of
from edgeprune.models.modes import batch_statistics, evaluating
from edgeprune.tasks.objective import CLASSIFYING, Objective
from edgeprune.tasks.task import Rows

Floats = npt.NDArray[np.float32]


def predict(
    module: nn.Module, images: Split | torch.Tensor | npt.NDArray[np.float32], batch_size: int = 256
) -> tuple[Floats, ...]:
    """Each output, float32 (N, ...), of a split in order or of preprocessed images (N, C, H, W).

    The module runs in eval mode where its weights are, and is left in the mode it was in.

    Raises:
        DataError: there are no images, or one cannot be read.
    """
    if len(images) == 0:
        raise DataError("there are no images to predict", hint="give the data set more images")
    parts = [tuple(output.numpy() for output in _answer(module, batch)) for batch in _batches(images, batch_size)]
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))


def rows_of(module: nn.Module, split: Split, objective: Objective, batch_size: int = 256) -> Rows:
    """What the task's metric has to know of a split's images, finished: (N, k).

    Raises:
        DataError: the split is empty, or an image cannot be read.
        ModelError: the task cannot read what the model answers.
    """
    if len(split) == 0:
        raise DataError("there are no images to measure", hint="give the data set more images")
    parts = [objective.rows(_answer(module, images), targets) for images, targets in split.batches(batch_size)]
    return objective.finished(np.concatenate(parts))


def measure(module: nn.Module, split: Split, objective: Objective) -> float:
    """The task's metric on a split.

    Raises:
        DataError, ModelError: as `rows_of`, or the metric is not a number.
    """
    return objective.measured(rows_of(module, split, objective))


def top1(module: nn.Module, split: Split) -> float:
    """Share of a split whose greatest logit is the label's.

    Raises:
        DataError: the split is empty, or an image cannot be read.
    """
    return measure(module, split, CLASSIFYING)


def _answer(module: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    weight, layout = next(module.parameters(), torch.empty(0)), memory_format(module)
    with evaluating(module), torch.no_grad():
        answers = module(images.to(weight.device, weight.dtype).contiguous(memory_format=layout))
    return tuple(output.float().cpu() for output in outputs_of(answers))


def recalibrate_batchnorm(module: nn.Module, split: Split, images: int, batch_size: int = 128) -> nn.Module:
    """A copy whose batch norms have the mean and variance of so many images of a split (plain average of batches).

    Raises:
        DataError: the split is empty, or an image cannot be read.
    """
    if len(split) == 0 or images < 1:
        raise DataError("there are no images to take batch norm statistics from")
    result = copy.deepcopy(module)
    if not any(isinstance(part, _BatchNorm) and part.track_running_stats for part in result.modules()):
        return result
    chosen = split.take(images)
    layout, weight = memory_format(result), next(result.parameters(), torch.empty(0))
    with batch_statistics(result, momentum=None, reset=True), torch.no_grad():
        for batch, _ in chosen.batches(batch_size, seed=0):
            if len(batch) == batch_size or len(chosen) < batch_size:
                result(batch.to(weight.device, weight.dtype).contiguous(memory_format=layout))
    return result


def memory_format(module: nn.Module) -> torch.memory_format:
    """The layout of a module's convolution weights; inputs of the same layout are fastest."""
    kernels = [p for p in module.parameters() if p.ndim == 4 and not p.is_contiguous()]
    return torch.channels_last if kernels else torch.contiguous_format


def _batches(images: Split | torch.Tensor | npt.NDArray[np.float32], batch_size: int) -> Iterator[torch.Tensor]:
    if isinstance(images, Split):
        yield from (batch for batch, _ in images.batches(batch_size))
    else:
        yield from torch.as_tensor(images).split(batch_size)
