"""A student while it is trained, an epoch at a time: the loop itself."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from edgeprune.data.ahead import ahead
from edgeprune.data.split import Split
from edgeprune.errors import DataError, ModelError, TrainingDiverged
from edgeprune.models.answers import as_floats, detached
from edgeprune.models.modes import evaluating
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import TuneSection
from edgeprune.tasks.objective import CLASSIFYING, Objective
from edgeprune.tasks.task import Rows, Targets, Task, moved, only_tensor
from edgeprune.training.accuracy import recalibrate_batchnorm
from edgeprune.training.average import Average, checkpointed
from edgeprune.training.best import ADAPTED_ON, Best
from edgeprune.training.features import Features
from edgeprune.training.gpu import recorded
from edgeprune.training.hooks import HeldAtZero, Hook
from edgeprune.training.losses import Losses, OtherTeacher, Seen
from edgeprune.training.mixing import Mixing, stronger_of
from edgeprune.training.optimizer import State, optimizer_of, put_state, state_of
from edgeprune.training.precision import running
from edgeprune.training.processes import Processes
from edgeprune.training.schedule import Schedule, steps_per_epoch
from edgeprune.training.snapshot import EpochRecord, Snapshot, job_id, newest_snapshot
from edgeprune.training.trackers import Tracker
from edgeprune.training.validation import validated

SHORT = 250  # steps, in fewer than which a batch norm's running statistics do not come after its weights


class Training:
    """Student, teacher and optimizer while they are trained, an epoch at a time.

    Args:
        masks: weights held at zero; see `tune`.
        hooks: called at each epoch and step, in their order.
        objective: what is lowered and measured.
        another: a teacher of the user's, beside the unpruned model.
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
        objective: Objective = CLASSIFYING,
        another: OtherTeacher | None = None,
    ) -> None:
        self.processes = Processes()
        self.id = job_id(student, teacher, settings, seed, len(train), masks)
        self.train, self.settings, self.seed, self.objective = train, settings, seed, objective
        self.device = self.processes.device
        self.running = running(settings.precision, self.device)
        _check(settings, self.processes, len(train))
        self.hooks = (*hooks, HeldAtZero(masks)) if masks else tuple(hooks)
        learns = settings.distillation > 0 or settings.features > 0
        self.teacher = self._placed(teacher).eval() if teacher is not None and learns else None
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.running.precision == "fp16")
        self._losses = Losses(
            settings,
            objective,
            self.teacher,
            another.to(self.device) if another is not None else None,
            lambda: self.running.autocast(self.device),
        )
        self._mixing = Mixing.of(settings, objective)
        self._stronger = stronger_of(settings)
        self.steps = steps_per_epoch(train, settings)
        self.schedule = Schedule(settings, self.steps, higher_is_better=objective.metric.higher_is_better)
        self.lr = settings.lr
        self.last: nn.Module | None = None  # what was validated last
        self.put(student)
        self._classes = self._told_apart() if self._mixing is not None else 0

    def put(self, student: nn.Module, remembered: State | None = None) -> None:
        """Train a copy of this module from now on, with what an optimizer remembered of its parameters."""
        self.student = self._placed(student)
        if self.settings.checkpointing:
            checkpointed(self.student)
        self.average = Average(self.student, self.settings.ema) if self.settings.ema else None
        self.named = {name: p for name, p in self.student.named_parameters() if p.requires_grad}
        self.optimizer = optimizer_of(self.student, self.settings)
        self.features: Features | None = None
        if self.settings.features and self.teacher is not None:
            self._learn_features()
        self._replayed: nn.Module | None = None
        self._rows: list[Rows] = []
        put_state(self.optimizer, self.named, remembered or {})

    def run(
        self,
        epochs: Iterable[int],
        validation: Split,
        history: tuple[EpochRecord, ...],
        keep: Callable[[tuple[EpochRecord, ...]], None],
        progress: Progress = SILENT,
        tracker: Tracker | None = None,
    ) -> tuple[EpochRecord, ...]:
        """Train these epochs (numbered from 1); `keep` is called with the history after each. Returns all of it."""
        progress = progress if self.processes.is_main else SILENT
        if self.running.why:
            progress.say(self.running.why)
        for epoch in epochs:
            for hook in self.hooks:
                hook.before_epoch(self, epoch)
            history = (*history, self.record_of(epoch, validation, progress))
            self.schedule.saw(history[-1:])
            progress.say(history[-1].words(self.objective.metric))
            if tracker is not None:
                tracker.log(history[-1])
            for hook in self.hooks:
                hook.after_epoch(self, epoch)
            keep(history)
        for hook in self.hooks:
            hook.at_end(self)
        return history

    def resume(self, folder: Path | None) -> Snapshot | None:
        """Take up the newest snapshot that the main process finds, and give it back."""
        found = newest_snapshot(folder, self.id) if folder is not None and self.processes.is_main else None
        snapshot = self.processes.from_main(found)
        if snapshot is not None:
            self.student.load_state_dict(snapshot.module)
            put_state(self.optimizer, self.learned, snapshot.optimizer)
            beside = {name: dict(_under(name, snapshot.beside)) for name in ("average", "features", "scaler")}
            if self.average is not None:
                self.average.module.load_state_dict(beside["average"])
            if self.features is not None:
                self.features.load_state_dict(beside["features"])
            if beside["scaler"]:
                told = {**self._scaler.state_dict(), "scale": beside["scaler"]["scale"].item()}
                self._scaler.load_state_dict({**told, "_growth_tracker": int(beside["scaler"]["growth"].item())})
            self.schedule.saw(snapshot.history)
            self.lr = snapshot.history[-1].lr
        return snapshot

    def snapshot(self, history: tuple[EpochRecord, ...], best: Best | None) -> Snapshot:
        """What there is to go on with."""
        beside: dict[str, torch.Tensor] = {}
        if self.average is not None:
            beside |= {f"average.{name}": tensor for name, tensor in self.average.module.state_dict().items()}
        if self.features is not None:
            beside |= {f"features.{name}": tensor for name, tensor in self.features.state_dict().items()}
        if self._scaler.is_enabled():
            told = self._scaler.state_dict()
            beside["scaler.scale"] = torch.tensor(told["scale"], dtype=torch.float64)
            beside["scaler.growth"] = torch.tensor(told["_growth_tracker"])
        return Snapshot(self.student.state_dict(), self.remembered(), history, best, beside=beside)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """What the optimizer changes, by name: the student's parameters, and those of projections beside it."""
        beside = self.features.named_parameters() if self.features is not None else ()
        return {**self.named, **{f"features/{name}": p for name, p in beside}}

    def remembered(self) -> State:
        """What the optimizer remembers of each parameter, by name."""
        return state_of(self.optimizer, self.learned)

    @property
    def given(self) -> nn.Module:
        """What training would give now, where it is: the student, or its moving average; in a short training, a copy
        with new statistics in its batch norms."""
        return recalibrated(
            self.average.module if self.average is not None else self.student, self.train, self.settings
        )

    def record_of(self, epoch: int, validation: Split, progress: Progress = SILENT) -> EpochRecord:
        """Train one epoch (numbered from 1), and say how it went."""
        start = time.perf_counter()
        loss = self.run_epoch(epoch, progress)
        figure = None
        self.last = self.given if len(validation) else None
        if self.last is not None:
            figure = validated(self.last, validation, self.objective, self.processes)
        rows = self.processes.all_rows(np.concatenate(self._rows)) if self._rows else None
        return EpochRecord(
            epoch=epoch,
            loss=loss,
            lr=self.lr,
            train=self.objective.measured(self.objective.finished(rows)) if rows is not None else None,
            validation=figure,
            seconds=time.perf_counter() - start,
        )

    def run_epoch(self, epoch: int, progress: Progress = SILENT) -> float:
        """Train one epoch (numbered from 1); returns the mean loss."""
        settings, losses, start = self.settings, [], time.perf_counter()
        self._rows = []
        self.student.train()
        batches = self.train.batches(
            settings.batch_size,
            seed=_seed_of(self.seed, epoch),
            augment=settings.augment or self.objective.task.augment,
            stronger=self._stronger,
            part=self.processes.part_of,
            workers=settings.workers,
        )
        if self.device.type == "cuda" and self._stronger.randaugment is None:
            batches = ahead(batches)
        size = min(settings.batch_size, len(self.train))
        with torch.random.fork_rng(), self.processes.together():
            # Dropout and the like go on alike after an interruption; each process draws its own.
            torch.manual_seed(_seed_of(self.seed, epoch) + self.processes.number)
            for step, (images, targets) in zip(range(1, self.steps + 1), batches, strict=False):
                self.lr = self.schedule.rate((epoch - 1) * self.steps + step)
                if self._mixing is not None:
                    images, targets = self._mix(images, targets, epoch, step)  # noqa: PLW2901
                losses.append(self._step(images, targets, size, (epoch - 1) * self.steps + step))
                if not math.isfinite(losses[-1]):
                    raise self._diverged(losses[-1], epoch, step)
                speed = step * settings.batch_size / (time.perf_counter() - start)
                told = f"epoch {epoch}/{settings.epochs}, {speed:.0f} images/s"
                progress.update(told, (epoch - 1) * self.steps + step, settings.epochs * self.steps)
        return sum(losses) / len(losses)

    def _step(self, images: torch.Tensor, targets: Targets, size: int, step: int) -> float:
        """One step of the optimizer, on this process's images of a batch of `size`, in as many parts as asked for."""
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        targets = moved(targets, self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group.get("lr_scale", 1.0)
        loss = torch.zeros((), device=self.device)
        for number, part in enumerate(_parts(len(images), self.settings.accumulate)):
            one = images if part is None else images[part]
            share = len(one) / size if self.processes.count > 1 or part is not None else 1.0
            loss += self._passes(one, targets if part is None else _cut(targets, part), share, first=number == 0)
        gradients = [p.grad for p in self.learned.values() if p.grad is not None]
        self.processes.add_up([*gradients, loss])
        self._scaler.unscale_(self.optimizer)
        for hook in self.hooks:
            hook.after_backward(self)
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.learned.values(), self.settings.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        for hook in self.hooks:
            hook.after_step(self)
        if self.average is not None:
            self.average.update(self.student, step)
        return loss.item()

    def _passes(self, images: torch.Tensor, targets: Targets, share: float, *, first: bool) -> torch.Tensor:
        """Forward and backward on some images, which count for this share of the batch, the first of it or
        more; returns their part of the loss."""
        student = self._student_for(images)
        watching = self.features.watching(self.student, self.teacher) if self.features and self.teacher else None
        with watching or nullcontext():
            taught = self._losses.taught(images)
            try:
                with self.running.autocast(self.device):
                    answers = as_floats(student(images))
            except ValueError as error:
                raise _of_one_value(error, self.settings) from error
            seen = Seen(images, targets, answers, taught, self.features)
            loss = self._losses(seen)
        for hook in self.hooks:
            if (more := hook.loss(self, seen)) is not None:
                loss = loss + more
        if self._mixing is None and type(self.objective.task).finished is Task.finished:
            self._rows.append(self.objective.rows(detached(answers), targets))
        if share != 1.0:
            loss = loss * share
        if first:
            self.optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        return loss.detach()

    def _student_for(self, images: torch.Tensor) -> nn.Module:
        """The student, or its recording where the settings ask for one; all batches of a training are alike."""
        if not self.settings.cuda_graphs or self.device.type != "cuda":
            return self.student
        if self._replayed is None:
            self._replayed = recorded(self.student, images, precision=self.running.dtype)
        return self._replayed

    def _mix(self, images: torch.Tensor, targets: Targets, epoch: int, step: int) -> tuple[torch.Tensor, Targets]:
        assert self._mixing is not None
        return self._mixing(images, targets, _seed_of(self.seed, epoch) + step, self._classes)

    def _told_apart(self) -> int:
        """How many classes the student tells apart."""
        images, _ = next(iter(self.train.batches(2)))
        with evaluating(self.student), torch.no_grad():
            answers = self.objective.read(self.student(images.to(self.device)))
        return max(2, int(only_tensor(answers, self.objective.name).shape[1]))

    def _learn_features(self) -> None:
        """Learn from the teacher's layers, too, with projections of their own."""
        assert self.teacher is not None
        images, _ = next(iter(self.train.take(32).batches(32)))
        placed = images.to(self.device).contiguous(memory_format=torch.channels_last)
        self.features = Features(self.student, self.teacher, placed, self.settings.feature_layers)
        if len(projections := list(self.features.parameters())):
            self.optimizer.add_param_group({"params": projections, "weight_decay": self.settings.weight_decay})

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


def recalibrated(trained: nn.Module, train: Split, settings: TuneSection) -> nn.Module:
    """The module after a training of `settings`; after a short one, a copy with new statistics in its batch norms."""
    if not 0 < settings.epochs * steps_per_epoch(train, settings) < SHORT:
        return trained
    plain = _laid_out(copy.deepcopy(trained), torch.contiguous_format)  # as the result will be: sums round alike
    return recalibrate_batchnorm(plain, train, ADAPTED_ON)


def _laid_out(module: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The same module with its convolution weights in this layout."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return module


def _check(settings: TuneSection, processes: Processes, images: int) -> None:
    """Check that the settings go together here.

    Raises:
        DataError: a process would have no image of a batch.
        ModelError: a recording cannot do what is asked for.
    """
    size = min(settings.batch_size, images)
    if size < processes.count * settings.accumulate:
        raise DataError(
            f"{processes.count} processes with {settings.accumulate} parts each cannot share a batch of {size} images",
            where="tune.batch_size",
            hint="give more images, raise tune.batch_size, or begin fewer processes",
        )
    if settings.cuda_graphs and processes.device.type == "cuda":
        alone = {"several processes": processes.count > 1, "tune.features": settings.features > 0}
        alone |= {"tune.accumulate": settings.accumulate > 1, "tune.checkpointing": settings.checkpointing}
        if given := [name for name, asked in alone.items() if asked]:
            raise ModelError(
                f"a recorded pass does not go with {', '.join(given)}",
                where="tune.cuda_graphs",
                hint="set `cuda_graphs = false` in [tune]",
            )


def _of_one_value(error: ValueError, settings: TuneSection) -> Exception:
    """torch's words for a batch norm that sees one number a channel, in ours; another error as it is."""
    if "Expected more than 1 value per channel" not in str(error):
        return error
    return DataError(
        "a batch norm of the model sees a single number of each channel, which has no variance: a batch of one image "
        f"(tune.batch_size is {settings.batch_size}, in {settings.accumulate} parts)",
        where="tune",
        hint="raise tune.batch_size to 2 at least, lower tune.accumulate, or give more training images",
    )


def _parts(images: int, parts: int) -> list[slice | None]:
    """So many parts of a batch, nearly alike; None for the whole of it."""
    if parts == 1:
        return [None]
    return [slice(images * i // parts, images * (i + 1) // parts) for i in range(parts)]


def _cut(targets: Targets, part: slice) -> Targets:
    from torch.utils import _pytree as pytree

    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor[part], targets)


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> Iterable[tuple[str, torch.Tensor]]:
    begin = f"{prefix}."
    return ((name.removeprefix(begin), tensor) for name, tensor in tensors.items() if name.startswith(begin))


def _seed_of(seed: int, epoch: int) -> int:
    """A seed for each epoch of each run."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
