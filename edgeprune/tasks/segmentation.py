"""Which class each pixel is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from edgeprune.errors import DataError
from edgeprune.recipe import Section
from edgeprune.tasks.classification import check_numbers, classes_named, soft_cross_entropy, told
from edgeprune.tasks.task import Metric, Outputs, Rows, Shares, Task, only_tensor, single


class SegmentationSettings(Section):
    """`ignore`: the number of pixels that count nowhere (the border of Pascal VOC's objects)."""

    ignore: int = Field(default=255, ge=0, le=65535)


class Segmentation(Task):
    """Outputs: logits (images, classes, h, w), or (images, 1, h, w) for two classes: above 0 is class 1. Smaller ones
    are enlarged to the mask bilinearly, as it is usual. Targets: masks (images, height, width) of class numbers.

    Loss: cross entropy in nats, the mean over the pixels that count. Metric: mean intersection over union of all
    images together, over the classes that the masks hold. Distillation: T^2 KL, the mean over pixels.
    """

    name = "segmentation"
    Settings = SegmentationSettings
    metric = Metric("mean IoU")
    agreement_name = "agreement of pixels"
    target = "mask"
    moves = True
    augment = "crop-flip"

    @property
    def ignore(self) -> int:
        """The number of pixels that count nowhere."""
        return cast(SegmentationSettings, self.settings).ignore

    def loss(self, outputs: Outputs, targets: Any) -> Tensor:
        logits = self._enlarged(single(only_tensor(outputs, self.name)), targets)
        if logits.shape[1] > 1:
            summed = F.cross_entropy(logits, targets, ignore_index=self.ignore, reduction="sum")
        else:
            counts = (targets != self.ignore).float()
            truth = (targets == 1).float()
            summed = F.binary_cross_entropy_with_logits(logits[:, 0], truth, weight=counts, reduction="sum")
        return summed / (targets != self.ignore).sum().clamp_min(1)

    def distillation(self, outputs: Outputs, teacher: Outputs, temperature: float) -> Tensor:
        student, taught = (single(only_tensor(one, self.name)) for one in (outputs, teacher))
        if student.shape[1] == 1:
            student, taught = (torch.cat([torch.zeros_like(one), one], 1) for one in (student, taught))
        return soft_cross_entropy(student, taught, temperature)

    def rows(self, outputs: Outputs, targets: Any) -> Rows:
        """Pixels of each class that are named rightly, that are named, and that are there: three counts a class."""
        logits = self._enlarged(single(only_tensor(outputs, self.name)), targets)
        classes = max(2, logits.shape[1])
        named = classes_named(logits)
        counts = targets != self.ignore
        both = torch.where(counts & (named == targets), targets, classes)
        parts = [_counts(one, classes) for one in (both, torch.where(counts, named, classes))]
        parts.append(_counts(torch.where(counts, targets, classes), classes))
        return np.concatenate(parts, axis=1)

    def measured(self, rows: Rows) -> float:
        both, named, there = np.split(rows.sum(axis=0), 3)
        seen = there > 0
        return float((both[seen] / (named + there - both)[seen]).mean()) if seen.any() else float("nan")

    def agreement(self, outputs: Outputs, reference: Outputs) -> Shares:
        one, other = (classes_named(only_tensor(each, self.name)) for each in (outputs, reference))
        return (one == other).double().flatten(1).mean(1).cpu().numpy()

    def chance(self, rows: Rows) -> float | None:
        """Every pixel named as the class of most pixels."""
        there = np.split(rows.sum(axis=0), 3)[2]
        return float(there.max() / there.sum() / (there > 0).sum()) if there.any() else None

    def best(self, rows: Rows) -> float | None:  # noqa: ARG002
        return 1.0

    def check(self, outputs: Outputs, targets: Any) -> None:
        logits = only_tensor(outputs, self.name)
        if logits.ndim != 4:
            raise DataError(
                f"the task segmentation reads logits of shape (images, classes, height, width), the model answers "
                f"{tuple(logits.shape)}",
                where="task",
                hint="name the task that the model is for ([task] name), or the output that holds the logits "
                "(task.output)",
            )
        if not isinstance(targets, Tensor) or targets.ndim != 3 or targets.is_floating_point():
            raise DataError(
                f"the task segmentation needs a mask of class numbers (height, width) for each image, the data give "
                f"{told(targets)}",
                where="data",
            )
        self._enlarged(logits.float(), targets)
        check_numbers(targets, max(2, logits.shape[1]), ignored=self.ignore)

    def check_masks(self, outputs: Outputs, numbers: Mapping[int, str]) -> None:
        counted = sorted(numbers.keys() - {self.ignore})
        try:
            check_numbers(torch.tensor(counted), max(2, only_tensor(outputs, self.name).shape[1]))
        except DataError as error:
            raise DataError(error.what, where=numbers[counted[-1]], hint=error.hint) from error

    def picture(self, outputs: Outputs) -> npt.NDArray[np.uint8] | None:
        return palette()[classes_named(only_tensor(outputs, self.name))[0].cpu().numpy() % 256]

    def _enlarged(self, logits: Tensor, targets: Tensor) -> Tensor:
        size = targets.shape[-2:]
        if logits.shape[-2:] == size:
            return logits
        if any(big % small for big, small in zip(size, logits.shape[-2:], strict=True)):
            raise DataError(
                f"masks of {size[1]}x{size[0]} do not fit an output of {logits.shape[3]}x{logits.shape[2]}",
                where="data",
                hint="masks need the size of the model's output, or a whole multiple of it",
            )
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def palette() -> npt.NDArray[np.uint8]:
    """256 colours (256, 3), neighbours far apart: Pascal VOC's, made from the bits of the number."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def _counts(numbers: Tensor, classes: int) -> Rows:
    """How often each class is in each image, (images, classes); numbers beyond them are left out."""
    offset = torch.arange(len(numbers), device=numbers.device)[:, None] * (classes + 1)
    flat = (numbers.flatten(1).clamp_max(classes) + offset).flatten()
    counts = torch.bincount(flat, minlength=len(numbers) * (classes + 1)).view(len(numbers), classes + 1)
    return counts[:, :classes].double().cpu().numpy()
