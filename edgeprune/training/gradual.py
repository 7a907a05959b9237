"""Training and pruning in turns, in one run: what stays is chosen anew every few epochs, with the weights as they are.

The whole model is kept beside the one that is trained. Before each turn the units that stay are cut out of it, and the
narrower model trains as fast as it is small; then its weights, batch norm statistics and momentum go back to their
places. So every unit has the weights that it last trained with, and one that went earlier can come back with them
(CHEX, Hou et al. 2022; REPrune trains so). The epochs are the first of the re-training's own cycle.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgeprune.data.split import Split
from edgeprune.recipe import TuneSection
from edgeprune.space.apply import remove_branches, remove_units
from edgeprune.space.cut import Removed
from edgeprune.space.submodel import Part
from edgeprune.space.units import Structure
from edgeprune.training.loop import Training, TuneProgress
from edgeprune.training.snapshot import EpochRecord, Snapshot, job_id, newest_snapshot, write_snapshot


@dataclass(frozen=True)
class Turn:
    """Some epochs between two choices. `progress` is how much of the pruning's epochs ran before it, from 0 to below 1;
    `goal_progress` how near the target its model is, up to below 1 (the last choice, after all turns, is the target's).
    """

    number: int  # from 1
    first: int  # its first epoch, from 1
    epochs: int
    progress: float
    goal_progress: float


Gone = tuple[Removed, tuple[str, ...]]  # units by group, and branches
NONE_GONE: Gone = ({}, ())
Chooser = Callable[[nn.Module, Gone, Turn], Gone]  # (the whole model, what is gone, the turn) -> what goes for the turn


@dataclass(frozen=True)
class Trained:
    """The whole model after the last turn (on the CPU, in eval mode), what was gone in it, and its epochs."""

    module: nn.Module
    gone: Gone
    history: tuple[EpochRecord, ...]


def turns(epochs: int, interval: int) -> tuple[Turn, ...]:
    """The turns of a number of epochs, `interval` each, the last one shorter where it must be."""
    starts = range(1, epochs + 1, interval)
    return tuple(
        Turn(number, first, min(interval, epochs + 1 - first), (first - 1) / epochs, number / (len(starts) + 1))
        for number, first in enumerate(starts, start=1)
    )


def train_in_turns(
    module: nn.Module,
    structure: Structure,
    choose: Chooser,
    train: Split,
    validation: Split,
    settings: TuneSection,
    *,
    epochs: int,
    interval: int,
    seed: int,
    snapshots: Path | None,
    on_progress: Callable[[TuneProgress], None] | None = None,
) -> Trained:
    """Train a copy of a model for `epochs` epochs of a cycle of `settings.epochs`, pruning it before every turn.

    With `snapshots` (a folder) an interrupted run goes on after its last whole turn.

    Args:
        module: the model that `structure` was found in; also the teacher, where the settings ask for distillation.
        choose: what goes for a turn; asked with the whole model in eval mode.

    Raises:
        EdgePruneError: as `tune` does, and what `choose` raises.
    """
    whole = copy.deepcopy(module).cpu().eval()
    teacher = module if settings.distillation > 0 else None
    job = job_id(module, teacher, settings, seed, len(train), {})
    saved = newest_snapshot(snapshots, job) if snapshots is not None else None
    momentum: dict[str, torch.Tensor] = {}
    history: tuple[EpochRecord, ...] = ()
    gone = NONE_GONE
    if saved is not None:
        whole.load_state_dict(saved.module)
        momentum, history, gone = saved.momentum, saved.history, saved.gone
    for turn in turns(epochs, interval):
        if turn.first <= len(history):
            continue
        gone = choose(whole, gone, turn)
        part = Part(whole, structure, gone[0])
        pruned = remove_branches(remove_units(whole, structure, gone[0]), structure, gone[1])
        training = Training(pruned, teacher, train, settings, seed)
        training.take_momentum({name: part.take(name, momentum[name]) for name in training.named if name in momentum})
        history = (*history, *_epochs(training, turn, validation, on_progress))
        part.put_back(whole, training.student.cpu())
        names = dict(whole.named_parameters())
        for name, buffer in training.momentum().items():
            if name not in momentum:
                momentum[name] = torch.zeros_like(names[name])
            part.put(name, momentum[name], buffer.cpu())
        if snapshots is not None:
            write_snapshot(snapshots, job, Snapshot(whole.state_dict(), momentum, history, gone))
    return Trained(whole, gone, history)


def _epochs(
    training: Training, turn: Turn, validation: Split, on_progress: Callable[[TuneProgress], None] | None
) -> Iterator[EpochRecord]:
    for epoch in range(turn.first, turn.first + turn.epochs):
        yield training.record_of(epoch, validation, on_progress)


def share_on_the_way(goal: float, progress: float) -> float:
    """The share of the cost that stays on the way to a goal, exponentially (HALP, NViT): 1 at the start, goal at 1."""
    return math.exp(progress * math.log(goal))
