"""The one training loop: labels mixed with distillation, one learning-rate cycle, a snapshot after each epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from edgeprune.data.ahead import ahead
from edgeprune.data.split import Split
from edgeprune.errors import DataError, TrainingDiverged
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Recipe, TuneSection
from edgeprune.space.weight_masks import apply_masks
from edgeprune.training.accuracy import recalibrate_batchnorm, top1
from edgeprune.training.best import ADAPTED_ON, Best, beginning
from edgeprune.training.gpu import recorded
from edgeprune.training.hooks import HeldAtZero, Hook
from edgeprune.training.precision import Ran, running
from edgeprune.training.snapshot import EpochRecord, Snapshot, job_id, newest_snapshot, write_snapshot

STABLE, STABLE_IN = 0.05, 250  # a learning rate, and steps in which a pruned model stays stable under it
STEEPEST = 5e-4  # rise of the learning rate in a step
SHORT = 250  # steps, in fewer than which a batch norm's running statistics do not come after its weights


@dataclass(frozen=True)
class TuneResult:
    """The tuned module (on the CPU, in eval mode), what each epoch gave, and what of it was kept.

    Args:
        precision: that training ran in; None where nothing was trained.
        kept: the epoch whose weights these are; 0 for those that training began with.
        began: the metric on the validation images of the model that training began with; None without such images.
    """

    module: nn.Module
    history: tuple[EpochRecord, ...]
    precision: Ran | None = None
    kept: int = 0
    began: float | None = None


def tune(
    student: nn.Module,
    teacher: nn.Module | None,
    train: Split,
    validation: Split,
    settings: TuneSection,
    *,
    seed: int,
    snapshots: Path | None,
    first: int = 1,
    masks: Mapping[str, torch.Tensor] | None = None,
    progress: Progress = SILENT,
) -> TuneResult:
    """Train a copy of the student; it runs on the GPU where there is one.

    The loss is (1 - d) CE(student, label) + d T^2 KL(teacher/T || student/T) with d = settings.distillation and
    T = settings.temperature (Hinton et al. 2015); without a teacher only the labels count. SGD with Nesterov momentum,
    no weight decay on biases and norms; the rate rises over the first steps (`rising_steps`) to `lr` (`peak_rate`),
    then falls to 0 along a cosine. In a training of fewer than `SHORT` steps, the batch norms of what an epoch gives
    get their statistics anew from training images, for running ones lag behind.

    The result is the best epoch by the validation images, where the student as it was given counts as one (with its
    batch norms as they are, or adapted, whichever is better); without such images it is the last. Zero epochs give the
    student back unchanged; the weights are also where a `first` epoch is beyond the last: those before it ran while the
    model was pruned (`turns.py`), in the same cycle.

    `masks` (parameter name -> bool tensor of its shape) hold weights at zero: where a mask is false, the weight is set
    to zero before the first step and after each one.

    With `snapshots` (a folder) an interrupted run goes on after its last whole epoch; on a CPU with as many threads
    it ends at the same weights as one that was not interrupted.

    Raises:
        DataError: there are no training images, or one cannot be read.
        TrainingDiverged: the loss is not finite (epoch, step and rate are named).
        ModelError: `settings.cuda_graphs` asks for a recording that this model does not allow.
        EdgePruneError: a snapshot cannot be written.
    """
    if settings.epochs < first:
        return TuneResult(_untrained(student, train, validation, settings, masks or {}), ())
    if len(train) == 0:
        raise DataError("there are no training images", hint="name `train` or `calibration` in [data]")
    job = Training(student, teacher, train, settings, seed, masks or {})
    saved = job.resume(snapshots)
    history, best = (saved.history, saved.best) if saved is not None else ((), None)
    if best is None and len(validation):
        best = beginning(_masked(student, masks or {}), train, validation)

    def keep(history: tuple[EpochRecord, ...]) -> None:
        nonlocal best
        last = history[-1]
        if best is not None and job.last is not None and last.validation is not None:
            best = best.or_this(job.last, last.epoch, last.validation)
        if snapshots is not None:
            write_snapshot(snapshots, job.id, Snapshot(job.student.state_dict(), job.momentum(), history, best))

    history = job.run(range(first + len(history), settings.epochs + 1), validation, history, keep, progress)
    result = copy.deepcopy(student).cpu().eval()
    if best is None:
        result.load_state_dict(job.given.state_dict())
        return TuneResult(result, _marked(history, settings.epochs), job.running.precision, settings.epochs)
    progress.say(_said(best, settings))
    history = _marked(history, best.epoch)
    return TuneResult(best.put_into(result), history, job.running.precision, best.epoch, best.began)


class Training:
    """Student, teacher and optimizer while they are trained, an epoch at a time.

    Args:
        masks: weights held at zero; see `tune`.
        hooks: called at each epoch and step, in their order.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        train: Split,
        settings: TuneSection,
        seed: int,
        masks: Mapping[str, torch.Tensor] = MappingProxyType({}),
        *,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.id = job_id(student, teacher, settings, seed, len(train), masks)
        self.train, self.settings, self.seed = train, settings, seed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.running = running(settings.precision, self.device)
        self.hooks = (*hooks, HeldAtZero(masks)) if masks else tuple(hooks)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.running.precision == "fp16")
        self.teacher = self._placed(teacher).eval() if teacher is not None and settings.distillation > 0 else None
        self.steps = steps_per_epoch(train, settings)
        self.lr = settings.lr
        self.last: nn.Module | None = None  # what was validated last
        self.put(student)

    def put(self, student: nn.Module, momentum: Mapping[str, torch.Tensor] = MappingProxyType({})) -> None:
        """Train a copy of this module from now on, with these momentum buffers."""
        self.student = self._placed(student)
        self.named = {name: p for name, p in self.student.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.SGD(
            [
                {"params": [p for p in self.named.values() if p.ndim > 1], "weight_decay": self.settings.weight_decay},
                {"params": [p for p in self.named.values() if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=self.settings.lr,
            momentum=self.settings.momentum,
            nesterov=self.settings.momentum > 0,
        )
        self._replayed: nn.Module | None = None
        self._right: torch.Tensor | int = 0  # images of this epoch whose class was named, and images in all
        self._seen = 0
        self.take_momentum(momentum)

    def run(
        self,
        epochs: Iterable[int],
        validation: Split,
        history: tuple[EpochRecord, ...],
        keep: Callable[[tuple[EpochRecord, ...]], None],
        progress: Progress = SILENT,
    ) -> tuple[EpochRecord, ...]:
        """Train these epochs (numbered from 1); `keep` is called with the history after each. Returns all of it."""
        if self.running.why:
            progress.say(self.running.why)
        for epoch in epochs:
            for hook in self.hooks:
                hook.before_epoch(self, epoch)
            history = (*history, self.record_of(epoch, validation, progress))
            progress.say(history[-1].words)
            for hook in self.hooks:
                hook.after_epoch(self, epoch)
            keep(history)
        for hook in self.hooks:
            hook.at_end(self)
        return history

    def resume(self, folder: Path | None) -> Snapshot | None:
        """Take up the newest snapshot, and give it back."""
        snapshot = newest_snapshot(folder, self.id) if folder is not None else None
        if snapshot is not None:
            self.student.load_state_dict(snapshot.module)
            self.take_momentum(snapshot.momentum)
            self.lr = snapshot.history[-1].lr
        return snapshot

    @property
    def given(self) -> nn.Module:
        """What training would give now, where it is: in a short one, a copy with new statistics in its batch norms."""
        return _recalibrated(self.student, self.train, self.settings)

    def take_momentum(self, momentum: Mapping[str, torch.Tensor]) -> None:
        """Go on with these buffers, by parameter name."""
        for name, buffer in momentum.items():
            own = torch.empty_like(self.named[name]).copy_(buffer)
            self.optimizer.state[self.named[name]]["momentum_buffer"] = own

    def momentum(self) -> dict[str, torch.Tensor]:
        """Momentum buffers by parameter name."""
        states = {name: self.optimizer.state[p].get("momentum_buffer") for name, p in self.named.items()}
        return {name: buffer for name, buffer in states.items() if buffer is not None}

    def record_of(self, epoch: int, validation: Split, progress: Progress = SILENT) -> EpochRecord:
        """Train one epoch (numbered from 1), and say how it went."""
        start = time.perf_counter()
        loss = self.run_epoch(epoch, progress)
        self.last = self.given if len(validation) else None
        accuracy = top1(self.last, validation) if self.last is not None else None
        return EpochRecord(
            epoch=epoch,
            loss=loss,
            lr=self.lr,
            train=float(self._right) / self._seen,
            validation=accuracy,
            seconds=time.perf_counter() - start,
        )

    def run_epoch(self, epoch: int, progress: Progress = SILENT) -> float:
        """Train one epoch (numbered from 1); returns the mean loss."""
        settings, losses, start = self.settings, [], time.perf_counter()
        self._right, self._seen = 0, 0
        self.student.train()
        batches = self.train.batches(settings.batch_size, seed=_seed_of(self.seed, epoch), augment=settings.augment)
        if self.device.type == "cuda":
            batches = ahead(batches)
        with torch.random.fork_rng():
            torch.manual_seed(_seed_of(self.seed, epoch))  # dropout and the like go on alike after an interruption
            for step, (images, labels) in zip(range(1, self.steps + 1), batches, strict=False):
                self.lr = self._rate((epoch - 1) * self.steps + step)
                losses.append(self._step(images, labels))
                if not math.isfinite(losses[-1]):
                    raise self._diverged(losses[-1], epoch, step)
                speed = step * settings.batch_size / (time.perf_counter() - start)
                told = f"epoch {epoch}/{settings.epochs}, {speed:.0f} images/s"
                progress.update(told, (epoch - 1) * self.steps + step, settings.epochs * self.steps)
        return sum(losses) / len(losses)

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        labels = labels.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        student = self._student_for(images)
        with self.running.autocast(self.device):
            targets = None
            if self.teacher is not None:
                with torch.no_grad():
                    targets = self.teacher(images).float()
            logits = student(images).float()
        self._right, self._seen = self._right + (logits.argmax(1) == labels).sum(), self._seen + len(labels)
        loss = self._loss(logits, labels, targets)
        self.optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        for hook in self.hooks:
            hook.after_step(self)
        return loss.item()

    def _student_for(self, images: torch.Tensor) -> nn.Module:
        """The student, or its recording where the settings ask for one; all batches of a training are alike."""
        if not self.settings.cuda_graphs or self.device.type != "cuda":
            return self.student
        if self._replayed is None:
            self._replayed = recorded(self.student, images, precision=self.running.dtype)
        return self._replayed

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor | None) -> torch.Tensor:
        hard = F.cross_entropy(logits, labels)
        if targets is None:
            return hard
        warm, share = self.settings.temperature, self.settings.distillation
        soft = F.kl_div(
            F.log_softmax(logits / warm, 1), F.log_softmax(targets / warm, 1), log_target=True, reduction="batchmean"
        )
        return (1 - share) * hard + share * warm**2 * soft

    def _rate(self, step: int) -> float:
        """Learning rate of a step, numbered from 1 over all epochs."""
        total = self.settings.epochs * self.steps
        rising, peak = rising_steps(self.settings, total), peak_rate(self.settings, total)
        if step <= rising:
            return peak * step / rising
        return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising + 1)))

    def _placed(self, module: nn.Module) -> nn.Module:
        """A copy on the device, in the layout that convolutions are fastest in."""
        return _laid_out(copy.deepcopy(module).to(self.device), torch.channels_last)

    def _diverged(self, loss: float, epoch: int, step: int) -> TrainingDiverged:
        return TrainingDiverged(
            f"the loss is {loss} in epoch {epoch}, step {step}, at a learning rate of {self.lr:.3g}",
            where="tune",
            hint=f"lower `lr` in [tune] (it is {self.settings.lr:g})"
            + ('; precision = "fp32" may help too' if self.running.precision != "fp32" else ""),
        )


def whole_cycle(recipe: Recipe) -> TuneSection:
    """The settings of one training whose first epochs run while the model is pruned."""
    return recipe.tune.model_copy(update={"epochs": recipe.prune.epochs + recipe.tune.epochs})


def peak_rate(settings: TuneSection, total: int) -> float:
    """The greatest learning rate of a training of so many steps: `lr`, but in few steps no more than is stable then,
    0.05 sqrt(total / 250). Where `warmup` is 0 it is `lr`.

    A pruned model begins near where it ends. A high rate throws it out of there, and a short training has no time to
    come back: both numbers are from benchmarks/few_steps.py (docs/results.md, "Few steps"), not from theory.
    """
    if settings.warmup == 0:
        return settings.lr
    return min(settings.lr, STABLE * math.sqrt(total / STABLE_IN))


def rising_steps(settings: TuneSection, total: int) -> int:
    """How many of a training's steps the learning rate rises over: the `warmup` share of them, but so many that no step
    raises it by more than 0.0005, or half of them where that is less. None where `warmup` is 0."""
    if settings.warmup == 0:
        return 0
    return round(max(settings.warmup * total, min(peak_rate(settings, total) / STEEPEST, total / 2)))


def _masked(student: nn.Module, masks: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of what training begins with, on the CPU, in eval mode."""
    begun = copy.deepcopy(student).cpu().eval()
    apply_masks(begun, masks)
    return begun


def _untrained(
    student: nn.Module, train: Split, validation: Split, settings: TuneSection, masks: Mapping[str, torch.Tensor]
) -> nn.Module:
    """What there is where no epoch is left to train: after a short training in turns, with new statistics in its batch
    norms where these are no worse."""
    begun = _masked(student, masks)
    adapted = _recalibrated(begun, train, settings)
    worse = adapted is not begun and len(validation) and top1(adapted, validation) < top1(begun, validation)
    return begun if worse else adapted


def _marked(history: tuple[EpochRecord, ...], kept: int) -> tuple[EpochRecord, ...]:
    return tuple(record.model_copy(update={"kept": record.epoch == kept}) for record in history)


def _said(best: Best, settings: TuneSection) -> str:
    if best.epoch == 0:
        return (
            f"re-training made nothing better: the model that it began with is kept, validation {best.began:.2%}; "
            f"lower `lr` in [tune] (it is {settings.lr:g}), or raise `epochs`"
        )
    return f"kept: epoch {best.epoch} of {settings.epochs}, validation {best.validation:.2%}, {best.began:.2%} before"


def _recalibrated(trained: nn.Module, train: Split, settings: TuneSection) -> nn.Module:
    """The module after a training of `settings`; after a short one, a copy with new statistics in its batch norms."""
    if not 0 < settings.epochs * steps_per_epoch(train, settings) < SHORT:
        return trained
    return recalibrate_batchnorm(trained, train, ADAPTED_ON)


def steps_per_epoch(train: Split, settings: TuneSection) -> int:
    """Whole batches of a training split, at least one."""
    return max(1, len(train) // settings.batch_size)


def _laid_out(module: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The same module with its convolution weights in this layout."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return module


def _seed_of(seed: int, epoch: int) -> int:
    """A seed for each epoch of each run."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
