"""The measuring protocol: how files are timed on a device so that the figures can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.devices.base import Device
from edgeprune.devices.conditions import ComputeUnits, Conditions, RuntimeBuild, RuntimeName
from edgeprune.devices.events import Visit
from edgeprune.devices.jobs import Case, CaseResult, Job, run_job
from edgeprune.errors import UsageError
from edgeprune.latency.isolation import timed_job
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.presets import Protocol, find_protocol
from edgeprune.latency.quality import judge
from edgeprune.latency.statistics import interval_of_median
from edgeprune.progress import SILENT, Progress


def measure(
    device: Device,
    files: Sequence[Path],
    *,
    runtime: RuntimeName,
    threads: int = 1,
    protocol: str | Protocol = "quick",
    compute_units: ComputeUnits = "ALL",
    progress: Progress = SILENT,
) -> list[Measurement]:
    """Latency of each file: all in one runner process, visited in turn (A B A B ...) so that they share conditions,
    or apart, where the protocol says so. What was throttled is measured again after a pause.

    `progress` is told the visits. `compute_units` is for Core ML.

    Raises:
        UsageError: a file is missing or cannot be run; names it.
        DeviceError: the device is in use, was lost, or stays too hot.
    """
    settings = find_protocol(protocol)
    groups = [[file] for file in files] if settings.apart else [list(files)]
    found: list[Measurement] = []
    for number, group in enumerate(groups):
        if number:
            time.sleep(settings.pause_s)
        rounds = settings.timing.rounds
        counter = VisitCounter(group, len(files) * rounds, progress, done=len(found) * rounds)
        job = Job(runtime, cases_of(group), threads=threads, timing=settings.timing, compute_units=compute_units)
        found += _measured(device, group, job, settings, counter)
    return found


def _measured(
    device: Device, files: Sequence[Path], job: Job, settings: Protocol, counter: VisitCounter
) -> list[Measurement]:
    """Files in one process, again while any is throttled and the protocol allows it."""
    facts = device.facts()
    for attempt in range(settings.retries + 1):
        if attempt:
            time.sleep(settings.pause_s)
        result = timed_job(device, job, on_event=counter)
        found = [
            measurement_of(
                succeeded(case, file, job.runtime).visits,
                file=file.name,
                device=facts.fingerprint,
                build=result.build,
                threads=job.threads,
                watched=[result.watched],
                cores=facts.cores,
            )
            for case, file in zip(result.cases.values(), files, strict=True)
        ]
        if not any(one.quality == "throttled" for one in found):
            break
    return found


def measure_peak_memory(device: Device, file: Path, *, runtime: RuntimeName) -> int | None:
    """Peak memory in bytes that loading and running the file adds to a process that has the runtime loaded; None
    where the device does not tell (it takes Linux's /proc).

    Raises:
        UsageError: the file is missing or cannot be run.
        DeviceError: the device is in use, or was lost.
    """
    case = run_job(device, Job(runtime, cases_of((file,)))).cases["0"]
    return succeeded(case, file, runtime).peak_memory_bytes


def measurement_of(
    visits: Sequence[Visit],
    *,
    file: str,
    device: str,
    build: RuntimeBuild,
    threads: int,
    watched: Sequence[Sequence[Conditions]],
    cores: int,
    divide: Callable[[float], float] = lambda seconds: seconds,
) -> Measurement:
    """A measurement from its visits and the conditions of each process that made them; `divide` turns a sample's
    seconds into what is measured (for probes)."""
    samples = [divide(s) for visit in visits for s in _clean(visit)]
    rounds = [divide(latency_of(visit)) for visit in visits]
    value, (low, high) = float(np.median(samples)), interval_of_median(samples)
    seen = [conditions for process in watched for conditions in process]
    quality, evidence = judge(
        value=value,
        low=low,
        high=high,
        series=rounds,
        latencies=rounds,
        watched=watched,
        cores=cores,
        preempted_share=preempted_share(visits),
        disturbed_share=disturbed_share(visits),
        samples=len(samples),
    )
    return Measurement(
        file=file,
        device=device,
        runtime=build,
        threads=threads,
        samples_s=tuple(samples),
        median_s=value,
        p90_s=float(np.percentile(samples, 90)),
        low_s=low,
        high_s=high,
        quality=quality,
        evidence=evidence,
        before=seen[0],
        after=seen[-1],
        during=tuple(seen[1:-1]),
    )


def succeeded(case: CaseResult, file: Path, runtime: str) -> CaseResult:
    """The result, or the failure as an error that names the file."""
    if case.failure is not None:
        raise UsageError(
            f"cannot be run by {runtime}: {case.failure}",
            where=str(file),
            hint="check that the file was exported for this runtime and its version",
        )
    return case


def cases_of(files: Sequence[Path]) -> tuple[Case, ...]:
    return tuple(Case(str(number), file) for number, file in enumerate(files))


def _clean(visit: Visit) -> tuple[float, ...]:
    """Samples without preempted ones; all of them when nothing else is left."""
    return visit.clean or visit.seconds


def latency_of(visit: Visit) -> float:
    """Seconds of one run in a visit: the median of its samples."""
    return float(np.median(_clean(visit)))


def preempted_share(visits: Sequence[Visit]) -> float:
    """Share of the samples in which the scheduler took the core away."""
    return sum(len(v.preempted) for v in visits) / max(1, sum(len(v.seconds) for v in visits))


def disturbed_share(visits: Sequence[Visit]) -> float:
    """Share of the visits that have no other samples."""
    return sum(not v.clean for v in visits) / max(1, len(visits))


class VisitCounter:
    """Counts visits for the progress shown to the user."""

    def __init__(self, files: Sequence[Path], total: int, progress: Progress, *, done: int = 0) -> None:
        self._text = f"timing {', '.join(file.name for file in files)}"
        self._done, self._total, self._progress = done, total, progress
        progress.update(self._text, done, total)

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "samples":
            self._done = min(self._done + 1, self._total)
            self._progress.update(self._text, self._done, self._total)
