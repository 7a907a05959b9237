"""Images mixed with each other, and their labels with them (mixup, cutmix), as timm does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeprune.data.augment import Stronger
from edgeprune.errors import RecipeError
from edgeprune.recipe import TuneSection
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.task import Targets, Task


class Mixing:
    """Mixes the images of a batch in pairs."""

    def __init__(self, mixup: float, cutmix: float) -> None:
        self._mixup, self._cutmix = mixup, cutmix
        self._mixes: dict[int, Any] = {}

    @classmethod
    def of(cls, settings: TuneSection, objective: Objective) -> Mixing | None:
        """What a recipe asks for; None for nothing.

        Raises:
            RecipeError: the task has no labels that can be mixed.
        """
        if not settings.mixup and not settings.cutmix:
            return None
        check_mixing(objective.task)
        return cls(settings.mixup, settings.cutmix)

    def __call__(self, images: Tensor, labels: Targets, seed: int, classes: int) -> tuple[Tensor, Targets]:
        """Images (N, C, H, W) and class numbers (N,) -> images, and shares of each class (N, classes). Of an odd number
        of images the last one is left out."""
        even = len(images) // 2 * 2
        if not even:
            return images, torch.nn.functional.one_hot(labels, classes).float()
        kept = np.random.get_state()
        try:
            np.random.seed(seed % 2**32)
            mixed: tuple[Tensor, Targets] = self._of(classes)(images[:even].clone(), labels[:even])
        finally:
            np.random.set_state(kept)
        return mixed

    def _of(self, classes: int) -> Any:
        if classes not in self._mixes:
            from edgeprune.models.timm_import import import_timm

            import_timm()
            from timm.data.mixup import Mixup

            self._mixes[classes] = Mixup(self._mixup, self._cutmix, label_smoothing=0.0, num_classes=classes)
        return self._mixes[classes]


def check_mixing(task: Task) -> None:
    """Check that a task's labels can be mixed.

    Raises:
        RecipeError: they cannot.
    """
    if not task.mixes:
        raise RecipeError(
            f"mixup and cutmix mix the labels of classes, and the task {task.name} has none",
            where="tune.mixup",
            hint="leave tune.mixup and tune.cutmix out",
        )


def stronger_of(settings: TuneSection) -> Stronger:
    """What a recipe asks to be done to training images beside shifts and flips."""
    return Stronger(settings.randaugment, settings.erasing, settings.repeats)
