"""Re-training: a loss of several terms, one learning-rate cycle, a snapshot after each epoch, the best one kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgeprune.data.split import Split
from edgeprune.errors import DataError
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Recipe, TuneSection
from edgeprune.space.weight_masks import apply_masks
from edgeprune.tasks.objective import CLASSIFYING, Objective
from edgeprune.training.best import Best, beginning
from edgeprune.training.losses import OtherTeacher
from edgeprune.training.precision import Ran
from edgeprune.training.processes import Processes
from edgeprune.training.snapshot import EpochRecord, write_snapshot
from edgeprune.training.trackers import Tracker
from edgeprune.training.trainer import Training, recalibrated
from edgeprune.training.validation import validated


@dataclass(frozen=True)
class TuneResult:
    """The tuned module (on the CPU, in eval mode), what each epoch gave, and what of it was kept.

    Args:
        precision: that training ran in; None where nothing was trained.
        kept: the epoch whose weights these are; 0 for those that training began with.
        began: the metric on the validation images of the model that training began with; None without such images.
        processes: that trained it together.
    """

    module: nn.Module
    history: tuple[EpochRecord, ...]
    precision: Ran | None = None
    kept: int = 0
    began: float | None = None
    processes: int = 1


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
    objective: Objective = CLASSIFYING,
    another: OtherTeacher | None = None,
    tracker: Tracker | None = None,
    progress: Progress = SILENT,
) -> TuneResult:
    """Train a copy of the student; it runs on the GPU where there is one, and in all processes that a launcher began.

    The loss is (1 - d) L(student, label) + d T^2 KL(teacher/T || student/T) with the task's loss L,
    d = settings.distillation and T = settings.temperature (Hinton et al. 2015), and what else the settings ask for
    (`losses.py`); without a teacher only the labels count. Unless the settings say otherwise it is SGD with Nesterov
    momentum, no weight decay on biases and norms; the rate rises over the first steps (`rising_steps`) to `lr`
    (`peak_rate`), then falls to 0 along a cosine. In a training of fewer than `SHORT` steps, the batch norms of what an
    epoch gives get their statistics anew from training images, for running ones lag behind.

    The result is the best epoch by the validation images, where the student as it was given counts as one (with its
    batch norms as they are, or adapted, whichever is better); without such images it is the last. Zero epochs give the
    student back unchanged; the weights are also where a `first` epoch is beyond the last: those before it ran while the
    model was pruned (`turns.py`), in the same cycle.

    `masks` (parameter name -> bool tensor of its shape) hold weights at zero: where a mask is false, the weight is set
    to zero before the first step and after each one.

    With `snapshots` (a folder) an interrupted run goes on after its last whole epoch; on a CPU with as many threads
    it ends at the same weights as one that was not interrupted. The main process alone writes and tells.

    Raises:
        DataError: there are no training images, or one cannot be read; a batch norm sees one number a channel.
        TrainingDiverged: the loss is not finite (epoch, step and rate are named).
        ModelError: `settings.cuda_graphs` asks for a recording that this model does not allow.
        RecipeError: an optimizer, features or a mix that this model, its task or this machine does not allow.
        EdgePruneError: a snapshot cannot be written.
    """
    masks = masks or {}
    if settings.epochs < first:
        return TuneResult(_untrained(student, train, validation, settings, masks, objective), ())
    if len(train) == 0:
        raise DataError("there are no training images", hint="name `train` or `calibration` in [data]")
    job = Training(student, teacher, train, settings, seed, masks, objective=objective, another=another)
    saved = job.resume(snapshots)
    history, best = (saved.history, saved.best) if saved is not None else ((), None)
    if best is None and len(validation):
        best = beginning(_masked(student, masks), train, validation, objective, job.processes)

    def keep(history: tuple[EpochRecord, ...]) -> None:
        nonlocal best
        last = history[-1]
        if best is not None and job.last is not None and last.validation is not None:
            best = best.or_this(job.last, last.epoch, last.validation, objective.metric)
        if snapshots is not None and job.processes.is_main:
            write_snapshot(snapshots, job.id, job.snapshot(history, best))

    epochs = range(first + len(history), settings.epochs + 1)
    history = job.run(epochs, validation, history, keep, progress, tracker)
    result, ran, count = copy.deepcopy(student).cpu().eval(), job.running.precision, job.processes.count
    if best is None:
        result.load_state_dict(job.given.state_dict())
        return TuneResult(result, _marked(history, settings.epochs), ran, settings.epochs, processes=count)
    if job.processes.is_main:
        progress.say(_said(best, settings, objective))
    return TuneResult(best.put_into(result), _marked(history, best.epoch), ran, best.epoch, best.began, count)


def whole_cycle(recipe: Recipe) -> TuneSection:
    """The settings of one training whose first epochs run while the model is pruned."""
    return recipe.tune.model_copy(update={"epochs": recipe.prune.epochs + recipe.tune.epochs})


def _masked(student: nn.Module, masks: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of what training begins with, on the CPU, in eval mode."""
    begun = copy.deepcopy(student).cpu().eval()
    apply_masks(begun, masks)
    return begun


def _untrained(
    student: nn.Module,
    train: Split,
    validation: Split,
    settings: TuneSection,
    masks: Mapping[str, torch.Tensor],
    objective: Objective,
) -> nn.Module:
    """What there is where no epoch is left to train: after a short training in turns, with new statistics in its batch
    norms where these are no worse."""
    begun = _masked(student, masks)
    adapted = recalibrated(begun, train, settings)
    if adapted is begun or not len(validation):
        return adapted
    before, after = (validated(one, validation, objective, Processes()) for one in (begun, adapted))
    return begun if objective.metric.is_better(before, after) else adapted


def _marked(history: tuple[EpochRecord, ...], kept: int) -> tuple[EpochRecord, ...]:
    return tuple(record.model_copy(update={"kept": record.epoch == kept}) for record in history)


def _said(best: Best, settings: TuneSection, objective: Objective) -> str:
    began, kept = (objective.metric.told(figure) for figure in (best.began, best.validation))
    if best.epoch == 0:
        return (
            f"re-training made nothing better: the model that it began with is kept, validation {began}; "
            f"lower `lr` in [tune] (it is {settings.lr:g}), or raise `epochs`"
        )
    return f"kept: epoch {best.epoch} of {settings.epochs}, validation {kept}, {began} before"
