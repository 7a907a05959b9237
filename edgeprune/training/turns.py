"""Training and pruning in turns, in one run: what stays is chosen anew every few epochs, with the weights as they are.

The whole model is kept beside the one that is trained. Before each turn the units that stay are cut out of it, and the
narrower model trains as fast as it is small; then its weights, batch norm statistics and momentum go back to their
places. So every unit has the weights that it last trained with, and one that went earlier can come back with them
(CHEX, Hou et al. 2022; REPrune trains so). The epochs are the first of the re-training's own cycle.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeprune.data.split import Split
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import TuneSection
from edgeprune.space.apply import apply
from edgeprune.space.submodel import Part
from edgeprune.space.subnet import WHOLE, Subnet
from edgeprune.space.units import Structure
from edgeprune.tasks.objective import CLASSIFYING, Objective
from edgeprune.training.hooks import Hook
from edgeprune.training.losses import OtherTeacher
from edgeprune.training.optimizer import WHOLE as OF_ALL
from edgeprune.training.optimizer import State
from edgeprune.training.snapshot import EpochRecord, Snapshot, newest_snapshot, write_snapshot
from edgeprune.training.trainer import Training


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


SEEN = "seen."  # how the names of what a watch remembers begin in a snapshot
Choose = Callable[[nn.Module, Subnet, Turn], Subnet]  # (the whole model, what is gone, the turn) -> what goes for it


@dataclass(frozen=True)
class Trained:
    """The whole model after the last turn (on the CPU, in eval mode), what was gone in it, and its epochs."""

    module: nn.Module
    gone: Subnet
    history: tuple[EpochRecord, ...]


class Watch(ABC):
    """Looks at the gradients of every step of a model that is pruned meanwhile, and remembers what it has seen."""

    @abstractmethod
    def see(self, student: nn.Module, part: Part) -> None:
        """Look at a step: the gradients are there, and the weights have not changed yet.

        Args:
            part: where the student's tensors lie in the whole model.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What is remembered, by name."""

    @abstractmethod
    def go_on(self, state: Mapping[str, Tensor]) -> None:
        """Take up what another one of the same model remembered."""


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
    choose: Choose,
    train: Split,
    validation: Split,
    settings: TuneSection,
    *,
    epochs: int,
    interval: int,
    seed: int,
    snapshots: Path | None,
    objective: Objective = CLASSIFYING,
    another: OtherTeacher | None = None,
    watch: Watch | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Train a copy of a model for `epochs` epochs of a cycle of `settings.epochs`, pruning it before every turn.

    With `snapshots` (a folder) an interrupted run goes on after its last whole turn.

    Args:
        module: the model that `structure` was found in; also the teacher, where the settings ask for distillation.
        choose: what goes for a turn; asked with the whole model in eval mode.
        watch: looks at every step; what it remembers is kept with the snapshots.

    Raises:
        EdgePruneError: as `tune` does, and what `choose` raises.
    """
    teacher = module if settings.distillation > 0 else None  # features are refused before (`check_tuning`)
    hook = PrunedInTurns(module, structure, choose, turns(epochs, interval), watch)
    # A moving average begins with the re-training: what it is of changes here with every turn.
    own = settings.model_copy(update={"ema": 0.0})
    training = Training(module, teacher, train, own, seed, hooks=[hook], objective=objective, another=another)
    saved = newest_snapshot(snapshots, training.id) if snapshots is not None else None
    history: tuple[EpochRecord, ...] = ()
    if saved is not None:
        hook.go_on(saved)
        history = saved.history
        training.schedule.saw(history)

    def keep(history: tuple[EpochRecord, ...]) -> None:
        if snapshots is not None and hook.is_whole:
            write_snapshot(snapshots, training.id, hook.snapshot(history))

    history = training.run(range(len(history) + 1, epochs + 1), validation, history, keep, progress)
    return Trained(hook.whole, hook.gone, history)


class PrunedInTurns(Hook):
    """Trains what is chosen for a turn, in the place of the whole model, and puts it back at the turn's end.

    `whole` is the whole model, `remembered` what the optimizer remembers of its parameters. Between turns (`is_whole`)
    all that was learned is in them.
    """

    def __init__(
        self,
        module: nn.Module,
        structure: Structure,
        choose: Choose,
        turns: Sequence[Turn],
        watch: Watch | None = None,
    ) -> None:
        self.whole = copy.deepcopy(module).cpu().eval()
        self.remembered: State = {}
        self.gone, self.is_whole = WHOLE, True
        self._structure, self._choose = structure, choose
        self._first = {turn.first: turn for turn in turns}
        self._last = {turn.first + turn.epochs - 1 for turn in turns}
        self._part: Part | None = None
        self._watch = watch

    def snapshot(self, history: tuple[EpochRecord, ...]) -> Snapshot:
        """What there is to go on with after a turn."""
        seen = self._watch.state() if self._watch is not None else {}
        beside = {f"{SEEN}{name}": tensor for name, tensor in seen.items()}
        return Snapshot(self.whole.state_dict(), self.remembered, history, gone=self.gone, beside=beside)

    def go_on(self, saved: Snapshot) -> None:
        """Take up what an interrupted run left after a turn."""
        self.whole.load_state_dict(saved.module)
        self.remembered, self.gone = saved.optimizer, saved.gone
        if self._watch is not None:
            seen = {name.removeprefix(SEEN): t for name, t in saved.beside.items() if name.startswith(SEEN)}
            self._watch.go_on(seen)

    def before_epoch(self, training: Training, epoch: int) -> None:
        if epoch not in self._first:
            return
        self.gone = self._choose(self.whole, self.gone, self._first[epoch])
        self._part = part = Part(self.whole, self._structure, self.gone.units)
        pruned = apply(self.whole, self._structure, self.gone)
        names = [name for name, parameter in pruned.named_parameters() if parameter.requires_grad]
        named = dict(self.whole.named_parameters())
        taken: State = {
            name: {
                key: part.take(name, value) if isinstance(value, Tensor) and value.shape == named[name].shape else value
                for key, value in self.remembered[name].items()
            }
            for name in names
            if name in self.remembered
        }
        training.put(pruned, {**taken, OF_ALL: self.remembered.get(OF_ALL, {})})
        self.is_whole = False

    def after_backward(self, training: Training) -> None:
        if self._watch is not None and self._part is not None:
            self._watch.see(training.student, self._part)

    def after_epoch(self, training: Training, epoch: int) -> None:
        if epoch not in self._last or self._part is None:
            return
        self._part.put_back(self.whole, training.student.cpu())
        named = dict(self.whole.named_parameters())
        trained = training.named
        for name, remembered in training.remembered().items():
            kept = self.remembered.setdefault(name, {})
            for key, value in remembered.items():
                if name == OF_ALL or not isinstance(value, Tensor) or value.shape != trained[name].shape:
                    kept[key] = value
                    continue
                if key not in kept:
                    kept[key] = torch.zeros_like(named[name], dtype=value.dtype)
                buffer = kept[key]
                assert isinstance(buffer, Tensor)
                self._part.put(name, buffer, value.cpu())
        self.is_whole = True


def share_on_the_way(goal: float, progress: float) -> float:
    """The share of the cost that stays on the way to a goal, exponentially (HALP, NViT): 1 at the start, goal at 1."""
    return math.exp(progress * math.log(goal))
