"""A task on one model: what training lowers and verification measures, asked with the model's own outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgeprune.errors import DataError, EdgePruneError, ModelError
from edgeprune.models.answers import PLAIN, Answers, Form, outputs_of
from edgeprune.recipe import TaskSection
from edgeprune.tasks.classification import Classification
from edgeprune.tasks.task import Metric, NoSettings, Outputs, Rows, Shares, Targets, Task

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Objective:
    """A task, and how the model's author wraps the outputs that it reads.

    Answers are the model's: a tensor, or a tuple of them in the order of its outputs (`models/answers.py`).

    Args:
        output: the number of the one output that the task reads; None: it gets the author's whole structure.
    """

    task: Task
    form: Form = PLAIN
    output: int | None = None

    @classmethod
    def of(cls, task: Task, section: TaskSection, form: Form) -> Objective:
        """The objective of a recipe on a model.

        Raises:
            DataError: the model has no such output.
        """
        if section.output is None:
            return cls(task, form)
        names = form.names
        if isinstance(section.output, int):
            number = section.output
        else:
            number = names.index(section.output) if section.output in names else -1
        if not 0 <= number < len(names):
            raise DataError(
                f"the model has no output {section.output!r}",
                where="task.output",
                hint=f"it has {', '.join(f'{name} ({i})' for i, name in enumerate(names))}",
            )
        return cls(task, form, number)

    @property
    def metric(self) -> Metric:
        return self.task.metric

    @property
    def name(self) -> str:
        return self.task.name

    def read(self, answers: Answers | Sequence[Tensor]) -> Outputs:
        """The outputs as the task reads them."""
        outputs = outputs_of(answers)
        return outputs[self.output] if self.output is not None else self.form.whole(outputs)

    def loss(self, answers: Answers, targets: Targets) -> Tensor:
        """The task's loss, a scalar."""
        return self._scalar("loss", self.task.loss(self.read(answers), targets))

    def distillation(self, answers: Answers, teacher: Answers, temperature: float) -> Tensor:
        """How far the answers are from a teacher's, a scalar."""
        return self._scalar("distillation", self.task.distillation(self.read(answers), self.read(teacher), temperature))

    def rows(self, answers: Answers | Sequence[Tensor], targets: Targets) -> Rows:
        """What the metric has to know of each image, (images, k)."""
        outputs = outputs_of(answers)
        with self._users_code("rows"):
            rows = np.asarray(self.task.rows(self.read(outputs), targets), dtype=np.float64)
        if rows.ndim != 2 or len(rows) != len(outputs[0]):
            raise ModelError(
                f"the task {self.name} gives rows of shape {rows.shape} for {len(outputs[0])} images",
                where=type(self.task).__qualname__,
                hint="`rows` has to return one row an image, (images, k)",
            )
        return rows

    def finished(self, rows: Rows) -> Rows:
        """The rows of all images of a data set."""
        with self._users_code("finished"):
            return np.asarray(self.task.finished(rows), dtype=np.float64)

    def measured(self, finished: Rows) -> float:
        """The metric, from rows that are `finished`.

        Raises:
            ModelError: it is not a number.
        """
        with self._users_code("measured"):
            value: Any = self.task.measured(finished)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise ModelError(
                f"the metric of the task {self.name} is {value!r} on {len(finished)} images, which is not a number",
                where=type(self.task).__qualname__,
                hint="`measured` has to return a finite number; are there targets that count?",
            )
        return float(value)

    def agreement(self, answers: Sequence[Array], reference: Sequence[Array]) -> Shares:
        """How far each image's answer is the same as another's, (images,), of outputs as arrays."""
        with self._users_code("agreement"):
            shares = self.task.agreement(self.read(tensors(answers)), self.read(tensors(reference)))
        return np.asarray(shares, dtype=np.float64).reshape(len(answers[0]))

    def check(self, answers: Answers, targets: Targets) -> None:
        """Look at a first batch.

        Raises:
            DataError, ModelError: the task cannot read the outputs or the targets.
        """
        with self._users_code("check"), torch.no_grad():
            self.task.check(self.read(answers), targets)
            loss = self.loss(answers, targets)
            self.rows(answers, targets)
        if not math.isfinite(loss.item()):
            raise ModelError(
                f"the loss of the task {self.name} is {loss.item()} on the first images",
                where=type(self.task).__qualname__,
                hint="look at the model's weights, at the targets, and at mean and std in [model]",
            )

    def check_masks(self, answers: Answers, numbers: Mapping[int, str]) -> None:
        """Look at the numbers that the masks of a split hold, each with a mask that has it.

        Raises:
            DataError: one of them is none of the task's.
        """
        with self._users_code("check_masks"):
            self.task.check_masks(self.read(answers), numbers)

    def right(self, finished: Rows) -> npt.NDArray[np.bool_] | None:
        """Which images are right, where the metric is their share; None where it is something else."""
        return self.task.right(finished)

    def chance(self, rows: Rows) -> float | None:
        """The metric of the best answer that does not look at the image; None where nobody knows."""
        return self.task.chance(rows)

    def best(self, rows: Rows) -> float | None:
        """The metric of a perfect answer; None where nobody knows."""
        return self.task.best(rows)

    def _scalar(self, what: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor) or value.ndim:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"the {what} of the task {self.name} is {shape}, not a scalar tensor",
                where=type(self.task).__qualname__,
                hint="let it return the mean over the images",
            )
        return value

    def _users_code(self, what: str) -> _TaskCode:
        return _TaskCode(self.task, what)


class _TaskCode:
    """Runs a task's code: what it raises is told as the task's, with the class and the function."""

    def __init__(self, task: Task, what: str) -> None:
        self._task, self._what = task, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, EdgePruneError):
            return
        lines = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"the task {self._task.name} failed in `{self._what}`: {type(error).__name__}: {lines[0]}",
            where=type(self._task).__qualname__,
            hint="it does not read what the model answers or what the data give; see docs/tasks.md",
        ) from error


def tensors(outputs: Sequence[Array]) -> tuple[Tensor, ...]:
    """Arrays as tensors."""
    return tuple(torch.from_numpy(np.ascontiguousarray(one)) for one in outputs)


CLASSIFYING = Objective(Classification(NoSettings()))
"""Of a classifier that returns its logits alone: what everything is asked unless a recipe names a task."""
