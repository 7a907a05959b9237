"""Numbers: depth, super-resolution, heat maps, or a few of them an image."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from edgeprune.errors import DataError
from edgeprune.recipe import Section
from edgeprune.tasks.classification import told
from edgeprune.tasks.task import Metric, Outputs, Rows, Task, only_tensor, single

_METRICS = {
    "rmse": Metric("root mean squared error", unit="", higher_is_better=False, drop="relative"),
    "mae": Metric("mean absolute error", unit="", higher_is_better=False, drop="relative"),
    "psnr": Metric("PSNR", unit="dB", drop="relative"),
}


class RegressionSettings(Section):
    """`loss`: which difference training lowers; `metric`: which is told; `peak`: the greatest value, for PSNR."""

    loss: Literal["l1", "l2", "huber"] = "l1"
    metric: Literal["rmse", "mae", "psnr"] = "rmse"
    peak: float = Field(default=1.0, gt=0)


class Regression(Task):
    """Outputs: numbers (images, ...). Targets: numbers of the same shape (an axis of one may be missing); those that
    are not a number (NaN) count nowhere.

    Loss: the mean absolute (l1), squared (l2) or Huber difference. Metric: root mean squared or mean absolute error
    over all numbers, or PSNR, 10 log10(peak^2 / mean squared error), the mean over images as in super-resolution.
    Distillation: the loss against the teacher's numbers.
    """

    name = "regression"
    Settings = RegressionSettings
    agreement_name = "explained variance"
    target = "values"
    moves = True

    def __init__(self, settings: Section) -> None:
        super().__init__(settings)
        self._own = cast(RegressionSettings, settings)
        self.metric = _METRICS[self._own.metric]

    def loss(self, outputs: Outputs, targets: Any) -> Tensor:
        values, truth = self._fitted(outputs, targets)
        counts = ~truth.isnan()
        apart = (values - torch.where(counts, truth, values)).abs()  # 0, and no slope, where nothing is known
        if self._own.loss == "l2":
            apart = apart.square()
        elif self._own.loss == "huber":
            apart = torch.where(apart < 1, 0.5 * apart.square(), apart - 0.5)
        return apart.sum() / counts.sum().clamp_min(1)

    def distillation(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:  # noqa: ARG002
        return self.loss(outputs, only_tensor(teacher, self.name))

    def rows(self, outputs: Outputs, targets: Any) -> Rows:
        """Numbers that count, sums of the squared and the absolute difference, of the target and of its square."""
        values, truth = (part.detach().double().flatten(1) for part in self._fitted(outputs, targets))
        counts = ~truth.isnan()
        apart = torch.where(counts, values - truth, 0.0)
        known = torch.where(counts, truth, 0.0)
        sums = [counts.double(), apart.square(), apart.abs(), known, known.square()]
        return torch.stack([part.sum(1) for part in sums], 1).cpu().numpy()

    def measured(self, rows: Rows) -> float:
        if not rows[:, 0].any():
            return float("nan")
        if self._own.metric == "psnr":
            return float(np.mean(self._psnr(rows[:, 1] / rows[:, 0].clip(1))))
        count, squared, absolute = rows.sum(axis=0)[:3]
        return float(absolute / count) if self._own.metric == "mae" else float(np.sqrt(squared / count))

    def chance(self, rows: Rows) -> float | None:
        """The mean of all targets, answered always (for the mean absolute error that is an upper bound)."""
        count, _, _, summed, squares = rows.sum(axis=0)
        if not count:
            return None
        variance = max(0.0, squares / count - (summed / count) ** 2)
        if self._own.metric == "psnr":
            mean = summed / count
            own = rows[:, 4] - 2 * mean * rows[:, 3] + mean**2 * rows[:, 0]
            return float(np.mean(self._psnr(own / rows[:, 0].clip(1))))
        return float(np.sqrt(variance))

    def check(self, outputs: Outputs, targets: Any) -> None:
        if not isinstance(targets, Tensor) or not targets.is_floating_point():
            raise DataError(
                f"the task regression needs numbers as targets, the data give {told(targets)}", where="data"
            )
        self._fitted(outputs, targets)

    def picture(self, outputs: Outputs) -> npt.NDArray[np.uint8] | None:
        """A map of one channel from black (least) to white; three channels as they are, 0 to `peak`."""
        values = only_tensor(outputs, self.name)[0].float().cpu().numpy()
        if values.ndim == 3 and values.shape[0] == 3:
            return (values.transpose(1, 2, 0) / self._own.peak * 255).clip(0, 255).astype(np.uint8)
        if values.ndim == 3 and values.shape[0] == 1:
            low, high = float(values.min()), float(values.max())
            grey = (values[0] - low) / ((high - low) or 1.0) * 255
            return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
        return None

    def _psnr(self, squared: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        floor = (self._own.peak / 2**16) ** 2  # equal to 16 bits: more is not told apart
        return np.asarray(10 * np.log10(self._own.peak**2 / np.maximum(squared, floor)))

    def _fitted(self, outputs: Outputs, targets: Tensor) -> tuple[Tensor, Tensor]:
        values = single(only_tensor(outputs, self.name))
        truth = targets.to(values)
        if truth.ndim == values.ndim - 1 and values.ndim > 1 and values.shape[1] == 1:
            truth = truth.unsqueeze(1)
        if truth.shape != values.shape:
            raise DataError(
                f"targets of shape {tuple(truth.shape)} do not fit outputs of {tuple(values.shape)}",
                where="data",
                hint="give targets of the shape that the model answers",
            )
        return values, truth
