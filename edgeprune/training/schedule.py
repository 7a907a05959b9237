"""The learning rate of each step: it rises first, then falls as the recipe says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from edgeprune.data.split import Split
from edgeprune.recipe import TuneSection
from edgeprune.training.snapshot import EpochRecord

STABLE, STABLE_IN = 0.05, 250  # a learning rate, and steps in which a pruned model stays stable under it
STEEPEST = 5e-4  # rise of the learning rate in a step


def steps_per_epoch(train: Split, settings: TuneSection) -> int:
    """Whole batches of a training split, at least one."""
    return max(1, len(train) // settings.batch_size)


def peak_rate(settings: TuneSection, total: int) -> float:
    """The greatest learning rate of a training of so many steps: `lr`, but in few steps no more than is stable then,
    0.05 sqrt(total / 250). Where `warmup` is 0 it is `lr`; so it is with another optimizer than SGD.

    A pruned model begins near where it ends. A high rate throws it out of there, and a short training has no time to
    come back: both numbers are from benchmarks/few_steps.py (docs/results.md, "Few steps"), not from theory.
    """
    if settings.warmup == 0 or settings.optimizer != "sgd":
        return settings.lr
    return min(settings.lr, STABLE * math.sqrt(total / STABLE_IN))


def rising_steps(settings: TuneSection, total: int) -> int:
    """How many of a training's steps the learning rate rises over: the `warmup` share of them, but so many that no step
    raises it by more than 0.0005, or half of them where that is less. None where `warmup` is 0."""
    if settings.warmup == 0:
        return 0
    return round(max(settings.warmup * total, min(peak_rate(settings, total) / STEEPEST, total / 2)))


class Schedule:
    """The rates of a training's steps.

    Args:
        steps: of an epoch.
        higher_is_better: whether the metric is, which a plateau is seen in.
    """

    def __init__(self, settings: TuneSection, steps: int, *, higher_is_better: bool = True) -> None:
        self._settings, self._sign = settings, 1 if higher_is_better else -1
        self.total = settings.epochs * steps
        self.rising, self.peak = rising_steps(settings, self.total), peak_rate(settings, self.total)
        self._by_epochs = settings.schedule == "plateau"
        self._timms = None if settings.schedule == "cosine" else _of_timm(settings, self.peak, steps, self._falling)

    @property
    def _falling(self) -> int:
        return max(1, self.total - self.rising)

    def rate(self, step: int) -> float:
        """Learning rate of a step, numbered from 1 over all epochs."""
        if step <= self.rising:
            return self.peak * step / self.rising
        if self._timms is not None:
            if not self._by_epochs:
                self._timms.step_update(step - self.rising - 1)
            return float(self._timms.optimizer.param_groups[0]["lr"])
        least = self._settings.min_lr
        return least + (self.peak - least) * 0.5 * (
            1 + math.cos(math.pi * (step - self.rising) / (self.total - self.rising + 1))
        )

    def saw(self, history: Iterable[EpochRecord]) -> None:
        """Take note of what epochs gave, each once, in their order: a plateau is seen in that."""
        if not self._by_epochs or self._timms is None:
            return
        for record in history:
            seen = -record.loss if record.validation is None else self._sign * record.validation
            self._timms.step(record.epoch, seen)


def _of_timm(settings: TuneSection, peak: float, steps: int, falling: int) -> Any:
    from edgeprune.models.timm_import import import_timm

    import_timm()
    from timm.scheduler.scheduler_factory import create_scheduler_v2

    by_epochs = settings.schedule == "plateau"
    carrier = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)  # its rate is all that is looked at
    scheduler, _ = create_scheduler_v2(
        carrier,
        settings.schedule,
        num_epochs=settings.epochs if by_epochs else falling,  # else one "epoch" is a step
        decay_epochs=None if settings.decay_epochs is None else _in_steps(settings.decay_epochs, steps),
        decay_milestones=[milestone * steps for milestone in settings.milestones],
        patience_epochs=settings.patience,
        decay_rate=settings.decay_rate,
        min_lr=settings.min_lr,
        warmup_lr=0.0,
        step_on_epochs=by_epochs,
        updates_per_epoch=1,
    )
    return scheduler


def _in_steps(epochs: float, steps: int) -> float:
    """timm takes what is below 1 for a share of the whole."""
    return epochs if epochs < 1 else epochs * steps
