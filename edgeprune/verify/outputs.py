"""What the float model and every file answer on the test images, in what the task's metric has to know of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from edgeprune.artifacts.manifest import Manifest
from edgeprune.devices.base import Device
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DataError
from edgeprune.progress import Part, Progress
from edgeprune.tasks.objective import Objective, tensors
from edgeprune.tasks.task import Rows, Shares, Targets, joined
from edgeprune.verify.execute import Floats, Outputs, run_file, runtime_on

CHUNK_BYTES = 256 * 2**20  # images held in memory at a time
BATCH = 64


class SplitLike(Protocol):
    """Images with targets; what `edgeprune.data` gives."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Targets]]:
        """Pairs of images (B, C, H, W) float32, preprocessed, and targets, their first axis the image."""
        ...


@dataclass(frozen=True)
class Same:
    """One device's answers against another's: agreement (images,), and the other's finished rows."""

    agreement: Shares
    rows: Rows


@dataclass(frozen=True)
class FileAnswers:
    """What a file answers to the test images.

    Args:
        rows: finished, (images, k).
        agreement: with the float model, (images,); None where it is not at hand.
        broken: images that give a value that is not finite.
        executed_on: where it ran.
        host: where it ran on an attached device: this machine's answers with the same runtime.
    """

    rows: Rows
    agreement: Shares | None
    broken: int
    executed_on: str
    host: Same | None = None


@dataclass(frozen=True)
class Answers:
    """The float model's finished rows (images, k; None where it is not at hand), each file's answers by its name, and
    the number of images."""

    rows: Rows | None
    files: Mapping[str, FileAnswers]
    images: int


class _Gathered:
    """The parts of one file's answers."""

    def __init__(self) -> None:
        self.rows: list[Rows] = []
        self.agreement: list[Shares] = []
        self.host_rows: list[Rows] = []
        self.host_agreement: list[Shares] = []
        self.broken, self.executed_on = 0, ""

    def together(self, objective: Objective) -> FileAnswers:
        host = None
        if self.host_rows:
            rows = objective.finished(np.concatenate(self.host_rows))
            host = Same(np.concatenate(self.host_agreement), rows)
        rows = objective.finished(np.concatenate(self.rows))
        agreement = np.concatenate(self.agreement) if self.agreement else None
        return FileAnswers(rows, agreement, self.broken, self.executed_on, host)


def collect_outputs(
    manifests: Sequence[Manifest],
    folder: Path,
    device: Device,
    float_outputs: Callable[[Floats], Outputs] | None,
    test: SplitLike,
    objective: Objective,
    *,
    images: int | None,
    threads: int,
    progress: Progress,
) -> Answers:
    """Run the float model, where there is one, and every file on the first `images` test images (all when None).

    Images are read once, and answers are held only a part at a time, so that a large test split fits in memory.

    Raises:
        DataError: there are no test images, or a file's outputs are not the float model's.
        UsageError, DeviceError: a file cannot be run.
    """
    total = len(test) if images is None else min(images, len(test))
    host = device if device.id == "local" else LocalDevice()
    found = {manifest.file: _Gathered() for manifest in manifests}
    compared = {manifest.file for manifest in manifests if _on_both(device, host, manifest)}
    rows: list[Rows] = []
    done = 0
    for part, targets in _parts(test, total, max(map(_output_bytes, manifests), default=0)):
        expected = None
        if float_outputs is not None:
            expected = float_outputs(part)
            rows.append(objective.rows(tensors(expected), targets))
        for manifest in manifests:
            progress.say(f"{manifest.file}: test images {done + 1} to {done + len(part)} of {total}")
            counted = Part(progress, done, total)
            execution = run_file(device, folder / manifest.file, manifest, part, threads=threads, progress=counted)
            if expected is not None:
                _check_alike(execution.outputs, expected, manifest)
            gathered = found[manifest.file]
            gathered.broken += broken_images(execution.outputs)
            gathered.executed_on = execution.executed_on
            outputs = _finite(execution.outputs)
            gathered.rows.append(objective.rows(tensors(outputs), targets))
            if expected is not None:
                gathered.agreement.append(objective.agreement(outputs, expected))
            if manifest.file in compared:
                here = _finite(run_file(host, folder / manifest.file, manifest, part, threads=threads).outputs)
                gathered.host_rows.append(objective.rows(tensors(here), targets))
                gathered.host_agreement.append(objective.agreement(outputs, here))
        done += len(part)
    if not done:
        raise DataError("the test split has no images", hint="name a test split in [data]")
    files = {file: gathered.together(objective) for file, gathered in found.items()}
    return Answers(objective.finished(np.concatenate(rows)) if rows else None, files, done)


def broken_images(outputs: Outputs) -> int:
    """How many images give a value that is not finite."""
    flat = [~np.isfinite(output).reshape(len(output), -1) for output in outputs]
    return int(np.concatenate(flat, axis=1).any(axis=1).sum())


def _finite(outputs: Outputs) -> Outputs:
    """Zero in the place of what is not finite, so that the rest can be looked at: such a file fails anyway."""
    return tuple(np.nan_to_num(output, nan=0.0, posinf=0.0, neginf=0.0) for output in outputs)


def _check_alike(outputs: Outputs, expected: Outputs, manifest: Manifest) -> None:
    shapes, known = ([output.shape for output in each] for each in (outputs, expected))
    if shapes != known:
        raise DataError(f"the outputs have shapes {shapes}, the float model's {known}", where=manifest.file)


def _on_both(device: Device, host: Device, manifest: Manifest) -> bool:
    """Whether a file runs on an attached device and on this machine."""
    apart = device.id != host.id and runtime_on(device, manifest) is not None
    return apart and runtime_on(host, manifest) is not None


def _output_bytes(manifest: Manifest) -> int:
    """What a file answers to one image, as float32."""
    return 4 * sum(math.prod(spec.shape) for spec in manifest.outputs)


def _parts(test: SplitLike, total: int, each: int) -> Iterator[tuple[Floats, Any]]:
    """The first `total` images, in parts of at most about CHUNK_BYTES, images and answers of `each` bytes."""
    held: list[Floats] = []
    targets: list[Targets] = []
    left = total
    for images, given in test.batches(BATCH):
        if left <= 0:
            break
        held.append(images[:left].numpy().astype(np.float32, copy=False))
        targets.append(joined([given], most=left))
        left -= len(held[-1])
        if sum(part.nbytes + each * len(part) for part in held) >= CHUNK_BYTES:
            yield np.concatenate(held), joined(targets)
            held, targets = [], []
    if held:
        yield np.concatenate(held), joined(targets)
