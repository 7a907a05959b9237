"""Which class an image is of: one of several, or one logit for yes and no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeprune.errors import DataError, ModelError
from edgeprune.tasks.task import Metric, Outputs, Rows, Shares, Task, only_tensor, single


class Classification(Task):
    """One class an image. Outputs: logits (images, classes), or (images, 1) for two classes: above 0 is class 1.
    Targets: class numbers (images,), or shares of each class (images, classes) while images are mixed.

    Loss: cross entropy in nats. Metric: top-1 accuracy. Distillation: T^2 KL(teacher/T || student/T) (Hinton et al.
    2015).
    """

    name = "classification"
    metric = Metric("top-1 accuracy")
    agreement_name = "top-1 agreement"
    target = "class"
    mixes = True
    names_classes = True
    augment = "crop-flip"

    def loss(self, outputs: Outputs, targets: Any) -> Tensor:
        logits = single(only_tensor(outputs, self.name))
        if logits.shape[1] > 1:
            return F.cross_entropy(logits, targets)
        return F.binary_cross_entropy_with_logits(logits[:, 0], targets.float() if targets.ndim == 1 else targets[:, 1])

    def distillation(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:
        student, taught = (_two_sided(single(only_tensor(one, self.name))) for one in (outputs, teacher))
        return soft_cross_entropy(student, taught, temperature)

    def rows(self, outputs: Outputs, targets: Any) -> Rows:
        """(named class, class) of each image."""
        named = classes_named(only_tensor(outputs, self.name))
        return np.stack([named.cpu().numpy(), targets.cpu().numpy()], axis=1).astype(np.float64)

    def measured(self, rows: Rows) -> float:
        return float(self.right(rows).mean())

    def right(self, rows: Rows) -> npt.NDArray[np.bool_]:
        return np.asarray(rows[:, 0] == rows[:, 1])

    def agreement(self, outputs: Outputs, reference: Outputs) -> Shares:
        one, other = (classes_named(only_tensor(each, self.name)) for each in (outputs, reference))
        return (one == other).cpu().numpy().astype(np.float64)

    def chance(self, rows: Rows) -> float | None:
        """The most frequent class, named always."""
        return float(np.unique(rows[:, 1], return_counts=True)[1].max() / len(rows))

    def best(self, rows: Rows) -> float | None:  # noqa: ARG002
        return 1.0

    def check(self, outputs: Outputs, targets: Any) -> None:
        logits = only_tensor(outputs, self.name)
        check_logits(logits)
        classes = max(2, logits.shape[1])
        if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
            raise DataError(
                f"the task classification needs one class number an image, the data give {told(targets)}",
                where="data",
                hint='a switch for each class is the task "multi-label"',
            )
        if len(targets) != len(logits) or not len(targets):
            raise DataError(f"{len(targets)} labels do not fit {len(logits)} images", hint="one label an image")
        check_numbers(targets, classes)

    def words(self, outputs: Outputs, labels: Sequence[str]) -> str:
        number = int(classes_named(only_tensor(outputs, self.name))[0])
        return labels[number] if number < len(labels) else f"class {number}"


def classes_named(logits: Tensor) -> Tensor:
    """The class (images,) that logits (images, classes) name; of one logit, 1 where it is above 0."""
    return logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher/T || student/T), the mean over all but dimension 1, which is the classes."""
    count = student.numel() // student.shape[1]
    divergence = F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.log_softmax(teacher / temperature, 1),
        log_target=True,
        reduction="sum",
    )
    return temperature**2 * divergence / count


def check_numbers(targets: Tensor, classes: int, *, ignored: int | None = None) -> None:
    """Check class numbers.

    Raises:
        DataError: one is beyond the classes.
    """
    counted = targets if ignored is None else targets[targets != ignored]
    if counted.numel() and (int(counted.min()) < 0 or int(counted.max()) >= classes):
        raise DataError(
            f"labels run from {int(counted.min())} to {int(counted.max())}, the model tells {classes} classes apart",
            where="data",
            hint="use the data set that the model was made for, or a model with as many classes",
        )


def told(targets: Any) -> str:
    """What targets are, for an error."""
    if not isinstance(targets, Tensor):
        return type(targets).__name__
    return f"{str(targets.dtype).removeprefix('torch.')} of shape {tuple(targets.shape)}"


def check_logits(logits: Tensor) -> None:
    """Check what a classifier answers.

    Raises:
        ModelError: it is not (images, classes).
    """
    if logits.ndim != 2:
        raise ModelError(
            f"the model answers {tuple(logits.shape)}, and the task classification reads (images, classes)",
            where="task",
            hint=_to_answer(logits),
        )


def _to_answer(logits: Tensor) -> str:
    """What the forward of a classifier has to end with, of one that answers something else."""
    if logits.ndim > 2 and logits[0].numel() == logits.shape[1]:
        return "end its forward with .flatten(1)"
    if logits.ndim < 2:
        return "let its forward keep the batch and the classes apart (no .squeeze(), no .view(-1))"
    return 'name the task that the model is for: [task] name = "segmentation", "regression", ...'


def _two_sided(logits: Tensor) -> Tensor:
    """One logit as those of two classes, so that its softmax is the sigmoid."""
    return logits if logits.shape[1] > 1 else torch.cat([torch.zeros_like(logits), logits], 1)
