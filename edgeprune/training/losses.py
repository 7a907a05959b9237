"""What training lowers: a sum of terms, each with a weight from the recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeprune.errors import RecipeError
from edgeprune.models.answers import Answers, as_floats, outputs_of
from edgeprune.models.spec import Model
from edgeprune.recipe import TuneSection
from edgeprune.tasks.classification import classes_named
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.task import Targets
from edgeprune.training.features import Features


@dataclass(frozen=True)
class Taught:
    """What teachers answer to a batch: the unpruned model, and the classes that another names."""

    unpruned: Answers | None
    classes: Tensor | None


@dataclass(frozen=True)
class Seen:
    """What a term looks at: a batch, what teachers answer to it, and the student."""

    images: Tensor
    targets: Targets
    answers: Answers
    taught: Taught
    features: Features | None


class Losses:
    """The terms of a training: (1 - d) labels + d T^2 KL(unpruned) + h labels of another teacher + f features, with
    d = distillation, h = teacher_weight, f = features. Without the unpruned model the labels count alone.

    Args:
        unpruned: on the device, in eval mode; None where nothing is learned from it.
        another: a teacher of the user's, likewise.
    """

    def __init__(
        self,
        settings: TuneSection,
        objective: Objective,
        unpruned: nn.Module | None,
        another: OtherTeacher | None,
        autocast: Callable[[], torch.autocast],
    ) -> None:
        self._settings, self._objective = settings, objective
        self._unpruned, self._another, self._autocast = unpruned, another, autocast

    def taught(self, images: Tensor) -> Taught:
        """What teachers answer to a batch. They are asked before the student, whose pass holds memory."""
        settings, unpruned, classes = self._settings, None, None
        if self._unpruned is not None and (settings.distillation or settings.features):
            unpruned = self._taught(self._unpruned, images)
        if self._another is not None and settings.teacher_weight:
            classes = classes_named(outputs_of(self._taught(self._another, images))[0])
        return Taught(unpruned, classes)

    def __call__(self, seen: Seen) -> Tensor:
        """The loss of a batch, a scalar."""
        settings, objective, taught = self._settings, self._objective, seen.taught
        total = objective.loss(seen.answers, seen.targets)
        if taught.unpruned is not None and (share := settings.distillation):
            soft = objective.distillation(seen.answers, taught.unpruned, settings.temperature)
            total = (1 - share) * total + share * soft
        if taught.classes is not None:
            total = total + settings.teacher_weight * objective.loss(seen.answers, taught.classes)
        if seen.features is not None:
            total = total + settings.features * seen.features.distance()
        return total

    def _taught(self, teacher: nn.Module, images: Tensor) -> Answers:
        with torch.no_grad(), self._autocast():
            return as_floats(teacher(images))


class OtherTeacher(nn.Module):
    """A teacher of the user's, which sees the student's images as it would prepare them itself."""

    def __init__(self, teacher: Model, student: Model) -> None:
        super().__init__()
        self.module = teacher.module.eval()
        own, given = teacher.spec.preprocessing, student.spec.preprocessing
        if (teacher.spec.input_size, teacher.spec.inputs) != (student.spec.input_size, student.spec.inputs):
            raise RecipeError(
                f"the teacher reads images of {teacher.spec.input_size}, the model {student.spec.input_size}"
                if not student.spec.inputs
                else "the teacher takes other inputs than the model, or takes them in another order",
                where="tune.teacher",
                hint="choose a teacher of the same input size",
            )
        scale = torch.tensor(given.std) / torch.tensor(own.std)
        shift = (torch.tensor(given.mean) - torch.tensor(own.mean)) / torch.tensor(own.std)
        self.scale = nn.Buffer(scale.view(1, -1, 1, 1))
        self.shift = nn.Buffer(shift.view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Answers:
        answers: Answers = self.module(images * self.scale + self.shift)
        return answers
