"""What a task is: a class that says what a model's answers mean, with its own settings.

A task is one file and one entry point of the group `edgeprune.tasks`, or a class of the user's own that the recipe
names (`package.module:Task`, `file.py:Task`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from edgeprune.errors import DataError
from edgeprune.metric import Metric
from edgeprune.recipe import Augment, Section, TargetKind

__all__ = [
    "Metric",
    "NoSettings",
    "Outputs",
    "Rows",
    "Shares",
    "Targets",
    "Task",
    "joined",
    "moved",
    "only_tensor",
    "single",
]

Outputs = Any  # what the model answers to a batch: a tensor, or tensors in tuples, lists, dicts, dataclasses
Targets = Any  # what the data set gives beside a batch of inputs, alike; the first axis of each tensor is the image
Rows = npt.NDArray[np.float64]  # one row an image: what the metric has to know of it
Shares = npt.NDArray[np.float64]  # one number an image, 1 where two answers are the same


class NoSettings(Section):
    """The settings of a task that has none."""


class Task(ABC):
    """Says what answers mean. Subclasses are made with their settings: the keys of [task] beside `name` and `output`.

    Outputs and targets come as the user's model and data set give them, batched; torch tensors, on one device.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Section]] = NoSettings
    metric: Metric
    agreement_name: str = "agreement"
    target: ClassVar[TargetKind] = "own"
    mixes: ClassVar[bool] = False  # whether `loss` takes the mixed targets of two images (mixup, cutmix)
    augment: ClassVar[Augment] = "none"  # of training images, unless the recipe says otherwise
    names_classes: ClassVar[bool] = False  # whether a row begins with the one class that is named, and the true one
    moves: ClassVar[bool] = False  # whether targets lie on the image, and are shifted and flipped with it

    def __init__(self, settings: Section) -> None:
        self.settings = settings

    @abstractmethod
    def loss(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The loss that training lowers: a scalar, the mean over the images of the batch."""

    @abstractmethod
    def rows(self, outputs: Outputs, targets: Targets) -> Rows:
        """What the metric has to know of each image, (images, k), all of the same k. Rows of all batches are put
        together."""

    @abstractmethod
    def measured(self, rows: Rows) -> float:
        """The metric of these images, from their rows (after `finished`). An interval is told from many draws of
        images: each image's row must stand for itself."""

    def finished(self, rows: Rows) -> Rows:
        """The rows of all images of a data set, where a row needs to see the others (a nearest neighbour)."""
        return rows

    def distillation(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:  # noqa: ARG002
        """How far answers are from a teacher's, a scalar to be lowered. Unless a task says otherwise: the mean squared
        difference of each tensor, in units of the teacher's variance."""
        return _mean([_relative_error(one, other) for one, other in _pairs(outputs, teacher)])

    def agreement(self, outputs: Outputs, reference: Outputs) -> Shares:
        """How far each image's answer is the same as another model's, (images,), 1 where it is. Unless a task says
        otherwise: the share of the reference's variance that the answer explains, 1 - sum (a - b)^2 / sum (b -
        mean)^2, over all tensors: 0.97 is a noise 15 dB below the signal."""
        parts = [_explained(one, other) for one, other in _pairs(outputs, reference)]
        return np.stack(parts).mean(axis=0)

    def check(self, outputs: Outputs, targets: Targets) -> None:  # noqa: B027 - a task need not look
        """Look at a first batch, before anything is measured or trained.

        Raises:
            DataError: the outputs or the targets are not what this task reads.
        """

    def check_masks(self, outputs: Outputs, numbers: Mapping[int, str]) -> None:  # noqa: B027 - few tasks have masks
        """Look at the numbers that the masks of a split hold, each with a mask that has it.

        Raises:
            DataError: one of them is none of this task's.
        """

    def right(self, rows: Rows) -> npt.NDArray[np.bool_] | None:  # noqa: ARG002
        """Which images are right, (images,), where the metric is their share; None where it is something else."""
        return None

    def chance(self, rows: Rows) -> float | None:  # noqa: ARG002
        """The metric of the best answer that does not look at the image; None where nobody knows. A model that is no
        better knows nothing."""
        return None

    def best(self, rows: Rows) -> float | None:  # noqa: ARG002
        """The metric of a perfect answer on these images; None where nobody knows."""
        return None

    def picture(self, outputs: Outputs) -> npt.NDArray[np.uint8] | None:  # noqa: ARG002
        """The answer to one image (a batch of one) as a picture (height, width, 3); None where it is none."""
        return None

    def words(self, outputs: Outputs, labels: Sequence[str]) -> str:  # noqa: ARG002
        """The answer to one image (a batch of one) in a few words; empty where it has none."""
        return ""


def only_tensor(outputs: Outputs, task: str) -> Tensor:
    """The one tensor of an answer.

    Raises:
        DataError: it holds none or several.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    if len(tensors) != 1:
        raise DataError(
            f"the task {task} reads one output, and the model gives {len(tensors)}",
            where="task.output",
            hint='say which one with task.output (its name or number: task.output = "out")',
        )
    return tensors[0]


def joined(parts: Sequence[Targets], *, most: int | None = None) -> Targets:
    """The targets of several batches as those of one; of its first `most` images where that is given."""
    trees = [pytree.tree_flatten(part) for part in parts]
    leaves = [
        torch.cat(each)[:most] if isinstance(each[0], Tensor) else each[0]
        for each in zip(*(tree[0] for tree in trees), strict=True)
    ]
    return pytree.tree_unflatten(leaves, trees[0][1])


def single(values: Tensor) -> Tensor:
    """Numbers of less than single precision in it; others as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def moved(targets: Targets, device: torch.device | str) -> Targets:
    """The same targets on a device."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), targets)


def _pairs(one: Outputs, other: Outputs) -> list[tuple[Tensor, Tensor]]:
    floats = [
        [leaf.float() for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)] for outputs in (one, other)
    ]
    if [part.shape for part in floats[0]] != [part.shape for part in floats[1]]:
        raise DataError(
            f"answers of shapes {[tuple(t.shape) for t in floats[0]]} cannot be held against "
            f"{[tuple(t.shape) for t in floats[1]]}"
        )
    return list(zip(*floats, strict=True))


def _relative_error(one: Tensor, other: Tensor) -> Tensor:
    spread = other.var(unbiased=False).clamp_min(torch.finfo(torch.float32).tiny)
    return (one - other).square().mean() / spread


def _explained(one: Tensor, other: Tensor) -> Shares:
    given, expected = (part.detach().double().flatten(1) for part in (one, other))
    noise = (given - expected).square().sum(1)
    signal = (expected - expected.mean()).square().sum(1)
    share = torch.where(noise == 0, 1.0, 1 - noise / signal.clamp_min(1e-300))
    return np.asarray(share.clamp(0, 1).cpu().numpy())


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean()
