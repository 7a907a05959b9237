"""Outputs of a file for many inputs, in batches: a device that is lost for a while costs one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.devices.base import Device
from edgeprune.devices.conditions import RuntimeBuild, RuntimeName
from edgeprune.devices.failures import WHAT_TO_TRY, understood
from edgeprune.devices.jobs import Array, Case, Job, run_job
from edgeprune.errors import DeviceError, UsageError
from edgeprune.progress import SILENT, Progress

INFERENCE_BATCH = 250  # inputs


@dataclass(frozen=True)
class InferenceResult:
    """Outputs of a file, each (N, ...), and the peak memory it added to the runner in bytes (None: not told)."""

    outputs: tuple[Array, ...]
    peak_memory_bytes: int | None
    build: RuntimeBuild


def run_inference(
    device: Device,
    file: Path,
    inputs: Array | Sequence[Array],
    *,
    runtime: RuntimeName,
    input_names: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    threads: int = 1,
    timeout_s: float = 3600,
    progress: Progress = SILENT,
) -> InferenceResult:
    """Run inputs one by one on the device. A file of several inputs takes several arrays.

    ExecuTorch does not tell the dimension order of an input: a .pte must take plain contiguous tensors.

    Args:
        inputs: each (N, ...) in the file's own dtype and layout, in the order of the file or of `input_names`.
        input_names: the names of the inputs, as manifests have them; Core ML needs them where there are several.
        outputs: the names of the outputs that are wanted, in their order; all, in the order of the file, without. Core
            ML needs them where there are several. The names of a .pte file's outputs say only how many there are.

    Raises:
        UsageError: the file cannot be run by this runtime, or crashes it, or the inputs do not fit, or it has no output
            of a name.
        DeviceError: the device is in use, was lost, or the time was up.
    """
    given = (inputs,) if isinstance(inputs, np.ndarray) else tuple(inputs)
    names, wanted = (None if those is None else tuple(those) for those in (input_names, outputs))
    _check(file, given, names, wanted)
    count = len(given[0])
    starts = range(0, count, INFERENCE_BATCH) if count else [0]
    done = dict.fromkeys((str(start) for start in starts), 0)

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            with understood(device.id, "the runner's progress"):
                done[str(event["case"])] = int(event["done"])
            progress.update(f"{file.name} on {device.id}", sum(done.values()), count)

    def case(start: int) -> Case:
        return Case(str(start), file, tuple(one[start : start + INFERENCE_BATCH] for one in given), names, wanted)

    job = Job(runtime, tuple(case(start) for start in starts), threads)
    result = run_job(device, job, timeout_s=timeout_s, on_event=on_event)
    batches: list[tuple[Array, ...]] = []
    for answer in result.cases.values():
        if answer.failure is not None or answer.outputs is None:
            raise UsageError(
                f"cannot be run by {runtime}: {answer.failure or 'it gave no output'}",
                where=str(file),
                hint="check the file's format, its inputs and the runtime's version",
            )
        asked = len(given[0][int(answer.id) : int(answer.id) + INFERENCE_BATCH])
        first = batches[0] if batches else answer.outputs
        if (wanted is not None and len(answer.outputs) != len(wanted)) or not _alike(answer.outputs, first, asked):
            shapes = ", ".join(f"{one.shape} {one.dtype}" for one in answer.outputs)
            raise DeviceError(f"{asked} inputs gave outputs of shape {shapes}", where=device.id, hint=WHAT_TO_TRY)
        batches.append(answer.outputs)
    peak = next(iter(result.cases.values())).peak_memory_bytes  # later on the process has memory of its own left
    return InferenceResult(tuple(np.concatenate(one) for one in zip(*batches, strict=True)), peak, result.build)


def _check(
    file: Path, inputs: tuple[Array, ...], names: tuple[str, ...] | None, wanted: tuple[str, ...] | None
) -> None:
    if not inputs or any(one.ndim < 1 or len(one) != len(inputs[0]) for one in inputs):
        shapes = ", ".join(str(one.shape) for one in inputs) or "none"
        raise UsageError(
            f"each input has as many rows as the others; given: {shapes}",
            where=str(file),
            hint="give one array (N, ...) for each input of the file",
        )
    if names is not None and len(names) != len(inputs):
        raise UsageError(
            f"{len(inputs)} inputs were given, and {len(names)} names", where=str(file), hint="name each input"
        )
    if wanted is not None and not wanted:
        raise UsageError("no output is wanted", where=str(file), hint="name one, or leave the names out for all")


def _alike(outputs: tuple[Array, ...], first: tuple[Array, ...], count: int) -> bool:
    """Whether outputs are those of so many inputs, and of the same file as the first ones."""
    return len(outputs) == len(first) and all(
        one.ndim > 0 and len(one) == count and one.dtype == other.dtype and one.shape[1:] == other.shape[1:]
        for one, other in zip(outputs, first, strict=True)
    )
