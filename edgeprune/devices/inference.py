"""Outputs of a file for many inputs, in batches: a device that is lost for a while costs one of them."""

from __future__ import annotations

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
    """Outputs (N, ...) of a file's first output, and the peak memory it added to the runner (None: not told)."""

    outputs: Array
    peak_memory_bytes: int | None
    build: RuntimeBuild


def run_inference(
    device: Device,
    file: Path,
    inputs: Array,
    *,
    runtime: RuntimeName,
    threads: int = 1,
    timeout_s: float = 3600,
    progress: Progress = SILENT,
) -> InferenceResult:
    """Run inputs (N, ...), in the file's own dtype and layout, one by one on the device.

    ExecuTorch does not tell the dimension order of an input: a .pte must take plain contiguous tensors.

    Raises:
        UsageError: the file cannot be run by this runtime, or crashes it, or the inputs do not fit.
        DeviceError: the device is in use, was lost, or the time was up.
    """

    starts = range(0, len(inputs), INFERENCE_BATCH) if len(inputs) else [0]
    done = dict.fromkeys((str(start) for start in starts), 0)

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            with understood(device.id, "the runner's progress"):
                done[str(event["case"])] = int(event["done"])
            progress.update(f"{file.name} on {device.id}", sum(done.values()), len(inputs))

    cases = tuple(Case(str(start), file, inputs[start : start + INFERENCE_BATCH]) for start in starts)
    result = run_job(device, Job(runtime, cases, threads), timeout_s=timeout_s, on_event=on_event)
    outputs: list[Array] = []
    peaks: list[int | None] = []
    for case in result.cases.values():
        if case.failure is not None or case.outputs is None:
            raise UsageError(
                f"cannot be run by {runtime}: {case.failure or 'it gave no output'}",
                where=str(file),
                hint="check the file's format, its inputs and the runtime's version",
            )
        asked = len(inputs[int(case.id) : int(case.id) + INFERENCE_BATCH])
        if case.outputs.ndim < 2 or len(case.outputs) != asked or (outputs and not _alike(case.outputs, outputs[0])):
            raise DeviceError(
                f"{asked} inputs gave outputs of shape {case.outputs.shape} {case.outputs.dtype}",
                where=device.id,
                hint=WHAT_TO_TRY,
            )
        outputs.append(case.outputs)
        peaks.append(case.peak_memory_bytes)
    peak = peaks[0]  # later on the process has memory of its own left to give
    return InferenceResult(np.concatenate(outputs), peak, result.build)


def _alike(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape[1:] == other.shape[1:]
