"""Which classes an image is of: none, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from edgeprune.errors import DataError
from edgeprune.tasks.classification import told
from edgeprune.tasks.task import Metric, Outputs, Rows, Shares, Task, only_tensor, single


class MultiLabel(Task):
    """Outputs: logits (images, classes), each for itself. Targets: 0 or 1 for each (images, classes), or shares of them
    while images are mixed.

    Loss: binary cross entropy, the mean over images and classes. Metric: mean average precision over the classes that
    some image is of. Distillation: T^2 KL of each class's yes and no.
    """

    name = "multi-label"
    metric = Metric("mean average precision")
    agreement_name = "agreement of labels"
    target = "classes"
    mixes = True

    def loss(self, outputs: Outputs, targets: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(single(only_tensor(outputs, self.name)), targets.float())

    def distillation(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:
        student, taught = (single(only_tensor(one, self.name)) / temperature for one in (outputs, teacher))
        shares = taught.sigmoid()
        apart = F.binary_cross_entropy_with_logits(student, shares)
        return temperature**2 * (apart - F.binary_cross_entropy_with_logits(taught, shares).detach())

    def rows(self, outputs: Outputs, targets: Any) -> Rows:
        """The logits of each class, then 0 or 1 for each."""
        logits = only_tensor(outputs, self.name).detach().float().cpu().numpy()
        return np.concatenate([logits, targets.cpu().numpy()], axis=1).astype(np.float64)

    def measured(self, rows: Rows) -> float:
        scores, there = np.split(rows, 2, axis=1)
        found = [average_precision(scores[:, i], there[:, i] > 0) for i in range(scores.shape[1]) if there[:, i].any()]
        return float(np.mean(found)) if found else float("nan")

    def agreement(self, outputs: Outputs, reference: Outputs) -> Shares:
        """The share of classes that both say yes to, or both no."""
        one, other = (only_tensor(each, self.name) > 0 for each in (outputs, reference))
        return (one == other).double().mean(1).cpu().numpy()

    def chance(self, rows: Rows) -> float | None:
        """Scores that do not tell images apart: the share of images of each class, on average."""
        there = np.split(rows, 2, axis=1)[1]
        frequent = there.mean(axis=0)
        return float(frequent[frequent > 0].mean()) if frequent.any() else None

    def best(self, rows: Rows) -> float | None:  # noqa: ARG002
        return 1.0

    def check(self, outputs: Outputs, targets: Any) -> None:
        logits = only_tensor(outputs, self.name)
        fits = isinstance(targets, Tensor) and targets.ndim == 2 and logits.ndim == 2 and targets.shape == logits.shape
        if not fits:
            raise DataError(
                f"the task multi-label needs 0 or 1 for each class of each image: the model answers "
                f"{tuple(logits.shape)}, the data give {told(targets)}",
                where="task",
                hint="give as many classes as the model has outputs",
            )
        if not ((targets == 0) | (targets == 1)).all():
            raise DataError("a label of the task multi-label is neither 0 nor 1", where="data")

    def words(self, outputs: Outputs, labels: Sequence[str]) -> str:
        named = (only_tensor(outputs, self.name)[0] > 0).nonzero()[:, 0].tolist()
        return ", ".join(labels[number] if number < len(labels) else f"class {number}" for number in named) or "none"


def average_precision(scores: npt.NDArray[np.float64], there: npt.NDArray[np.bool_]) -> float:
    """The area under the precision-recall steps: the mean, over the images that are of a class, of the precision down
    to each. Images of equal scores count together, so that a constant score gives the share of the class."""
    order = np.argsort(-scores, kind="stable")
    ranked, right = scores[order], there[order]
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))  # of each run of equal scores
    found = np.cumsum(right)[last]
    gained = np.diff(np.insert(found, 0, 0))
    return float((gained * found / (last + 1)).sum() / found[-1])
