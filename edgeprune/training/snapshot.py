"""What a tuning run needs to go on after an interruption. No pickles.

FOLDER/epoch-0003.safetensors   weights and the optimizer's state after three epochs,
                                and the best weights so far
FOLDER/epoch-0003.json          written last: the snapshot is whole exactly when this file is there and the other
                                has the hash it says
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from pydantic import Field
from torch import nn

from edgeprune.checksum import file_sha256
from edgeprune.errors import RunError
from edgeprune.models.checkpoint import to_bytes
from edgeprune.recipe import TuneSection
from edgeprune.records import Record
from edgeprune.resume import Resumption
from edgeprune.runs import write_atomic
from edgeprune.space.subnet import WHOLE, Subnet
from edgeprune.tasks.task import Metric
from edgeprune.training.best import Best
from edgeprune.training.optimizer import State

_log = logging.getLogger(__name__)


class EpochRecord(Record):
    """One epoch: mean loss of its steps, the last learning rate, top-1 on the validation images (None without any).

    `train` is top-1 on the training images of its steps, as they were trained on: augmented, with the weights of each
    step. None in what an earlier version wrote.
    """

    epoch: int  # from 1
    loss: float
    lr: float
    train: float | None = None
    validation: float | None
    seconds: float
    kept: bool = False  # the model of this epoch is the result

    def words(self, metric: Metric) -> str:
        shown = "" if self.validation is None else f", validation {metric.told(self.validation)}"
        return f"epoch {self.epoch}: loss {self.loss:.4f}{shown}, {self.seconds:.0f} s"


class SnapshotHead(Record):
    """The JSON half of a snapshot."""

    version: Literal[1] = 1
    job: str  # see `job_id`
    sha256: str  # of the safetensors half
    history: tuple[EpochRecord, ...]
    best: tuple[int, float, float] | None = None  # `Best` without its weights
    numbers: dict[str, dict[str, float | int | bool | None]] = Field(default={})  # that the optimizer remembers
    gone: tuple[dict[str, tuple[int, ...]], tuple[str, ...]] = ({}, ())  # units by group, and branches


@dataclass(frozen=True)
class Snapshot:
    """A whole snapshot: weights and buffers by name, what the optimizer remembers, the epochs so far, the best of them,
    where the model is pruned meanwhile (`turns.py`), what is gone, and what else trained beside it, by name."""

    module: dict[str, torch.Tensor]
    optimizer: State
    history: tuple[EpochRecord, ...]
    best: Best | None = None
    gone: Subnet = WHOLE
    beside: dict[str, torch.Tensor] = field(default_factory=dict)


def job_id(
    student: nn.Module,
    teacher: nn.Module | None,
    settings: TuneSection,
    seed: int,
    images: int,
    masks: Mapping[str, torch.Tensor],
) -> str:
    """Hash of all that a tuning run starts from: a snapshot of another run is not resumed."""
    digest = hashlib.sha256(json.dumps([settings.model_dump(mode="json"), seed, images], sort_keys=True).encode())
    for module in (student, teacher):
        digest.update(to_bytes(module.state_dict()) if module is not None else b"-")
    if masks:
        digest.update(to_bytes(dict(masks)))
    return digest.hexdigest()


def write_snapshot(folder: Path, job: str, snapshot: Snapshot) -> None:
    """Write a snapshot and delete those before the last one.

    Raises:
        EdgePruneError: the disk is full or the folder cannot be written.
    """
    stem = folder / f"epoch-{len(snapshot.history):04d}"
    state = [(name, key, value) for name, kept in snapshot.optimizer.items() for key, value in kept.items()]
    numbers: dict[str, dict[str, float | int | bool | None]] = {}
    for name, key, value in state:
        if not isinstance(value, torch.Tensor):
            numbers.setdefault(name, {})[key] = value
    tensors = _prefixed("module.", snapshot.module) | _prefixed("beside.", snapshot.beside)
    tensors |= {f"optimizer.{key}:{name}": value for name, key, value in state if isinstance(value, torch.Tensor)}
    best = snapshot.best
    if best is not None:
        tensors |= _prefixed("best.", best.state)
    data = to_bytes(tensors)
    write_atomic(stem.with_suffix(".safetensors"), data)
    gone = (dict(snapshot.gone.units), snapshot.gone.dropped)
    head = SnapshotHead(
        job=job,
        sha256=hashlib.sha256(data).hexdigest(),
        history=snapshot.history,
        best=(best.epoch, best.validation, best.began) if best is not None else None,
        gone=gone,
        numbers=numbers,
    )
    Resumption(folder).write(f"{stem.name}.json", head)
    for old in sorted(folder.glob("epoch-*.json"))[:-2]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def newest_snapshot(folder: Path, job: str) -> Snapshot | None:
    """The newest whole snapshot of this job, or None; broken or foreign ones are passed over with a warning."""
    for path in sorted(folder.glob("epoch-*.json"), reverse=True):
        weights = path.with_suffix(".safetensors")
        try:
            head = Resumption(folder).read(path.name, SnapshotHead)
        except RunError as error:  # the one before it is whole, and an epoch is soon trained again
            _log.warning("%s: not a snapshot, passed over (%s)", path, error.what)
            continue
        if head is None:
            continue
        if head.job != job:
            _log.warning("%s: a snapshot of another run, passed over", path)
        elif not weights.is_file() or file_sha256(weights) != head.sha256:
            _log.warning("%s: missing or changed, passed over", weights)
        else:
            tensors = safetensors.torch.load_file(str(weights))
            best = Best(*head.best, _without("best.", tensors)) if head.best is not None else None
            return Snapshot(
                _without("module.", tensors),
                _state_in(tensors, head),
                head.history,
                best,
                Subnet(*head.gone),
                _without("beside.", tensors),
            )
    return None


def _state_in(tensors: Mapping[str, torch.Tensor], head: SnapshotHead) -> State:
    state: State = {name: dict(numbers) for name, numbers in head.numbers.items()}
    for place, tensor in _without("optimizer.", tensors).items():
        key, _, name = place.partition(":")
        state.setdefault(name, {})[key] = tensor
    return state


def _prefixed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _without(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
