"""What the float model and every file answer on the test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from edgeprune.artifacts.manifest import Manifest
from edgeprune.devices.base import Device
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DataError
from edgeprune.progress import Part, Progress
from edgeprune.verify.execute import Floats, run_file, runtime_on

Labels = npt.NDArray[np.int64]
CHUNK_BYTES = 256 * 2**20  # images held in memory at a time
BATCH = 64


class SplitLike(Protocol):
    """Images with labels; what `edgeprune.data` gives."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of images (B, C, H, W) float32, preprocessed, and labels (B,) int64."""
        ...


@dataclass(frozen=True)
class Answers:
    """Labels (N,), logits (N, classes) of the float model and of every file (by name), and where each file ran. The
    float model's are None where it is not at hand.

    `host_logits`: of the files that ran on an attached device, what this machine answers with the same runtime.
    """

    labels: Labels
    float_logits: Floats | None
    logits: Mapping[str, Floats]
    executed_on: Mapping[str, str]
    host_logits: Mapping[str, Floats] = field(default_factory=dict)


def collect_outputs(
    manifests: Sequence[Manifest],
    folder: Path,
    device: Device,
    float_outputs: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None,
    test: SplitLike,
    *,
    images: int | None,
    threads: int,
    progress: Progress,
) -> Answers:
    """Run the float model, where there is one, and every file on the first `images` test images (all when None).

    Images are read once and held only a part at a time, so that a large test split fits in memory.

    Raises:
        DataError: there are no test images, or a file's outputs are not the float model's classes.
        UsageError, DeviceError: a file cannot be run.
    """
    total = len(test) if images is None else min(images, len(test))
    labels: list[Labels] = []
    floats: list[Floats] = []
    logits: dict[str, list[Floats]] = {manifest.file: [] for manifest in manifests}
    executed_on: dict[str, str] = {}
    host = device if device.id == "local" else LocalDevice()
    compared = [manifest for manifest in manifests if _on_both(device, host, manifest)]
    host_logits: dict[str, list[Floats]] = {manifest.file: [] for manifest in compared}
    done = 0
    for part, part_labels in _parts(test, total):
        labels.append(part_labels)
        if float_outputs is not None:
            floats.append(np.asarray(float_outputs(part), dtype=np.float32))
        for manifest in manifests:
            progress.say(f"{manifest.file}: test images {done + 1} to {done + len(part)} of {total}")
            counted = Part(progress, done, total)
            execution = run_file(device, folder / manifest.file, manifest, part, threads=threads, progress=counted)
            if floats and execution.outputs.shape != floats[-1].shape:
                raise DataError(
                    f"the outputs have shape {execution.outputs.shape}, the float model's {floats[-1].shape}",
                    where=manifest.file,
                )
            logits[manifest.file].append(execution.outputs)
            executed_on[manifest.file] = execution.executed_on
        for manifest in compared:
            here = run_file(host, folder / manifest.file, manifest, part, threads=threads)
            host_logits[manifest.file].append(here.outputs)
        done += len(part)
    if not labels:
        raise DataError("the test split has no images", hint="name a test split in [data]")
    together = {name: np.concatenate(parts) for name, parts in logits.items()}
    hosts = {name: np.concatenate(parts) for name, parts in host_logits.items()}
    reference = np.concatenate(floats) if floats else None
    return Answers(np.concatenate(labels), reference, together, executed_on, hosts)


def _on_both(device: Device, host: Device, manifest: Manifest) -> bool:
    """Whether a file runs on an attached device and on this machine."""
    apart = device.id != host.id and runtime_on(device, manifest) is not None
    return apart and runtime_on(host, manifest) is not None


def _parts(test: SplitLike, total: int) -> Iterator[tuple[Floats, Labels]]:
    """The first `total` images, in parts of at most CHUNK_BYTES."""
    held: list[Floats] = []
    labels: list[Labels] = []
    left = total
    for images, numbers in test.batches(BATCH):
        if left <= 0:
            break
        held.append(images[:left].numpy().astype(np.float32, copy=False))
        labels.append(numbers[:left].numpy().astype(np.int64, copy=False))
        left -= len(held[-1])
        if sum(part.nbytes for part in held) >= CHUNK_BYTES:
            yield np.concatenate(held), np.concatenate(labels)
            held, labels = [], []
    if held:
        yield np.concatenate(held), np.concatenate(labels)
