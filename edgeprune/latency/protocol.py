"""The measuring protocol: how files are timed on a device so that the figures can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.devices.base import Device
from edgeprune.devices.conditions import Conditions, RuntimeBuild, RuntimeName
from edgeprune.devices.jobs import Case, CaseResult, Job, JobResult, Timing, Visit, run_job
from edgeprune.errors import DeviceError, UsageError
from edgeprune.latency.measurement import Measurement, Ratio
from edgeprune.latency.quality import judge
from edgeprune.latency.statistics import interval_of_median, interval_over_groups


@dataclass(frozen=True)
class Protocol:
    """How long and how often. `timing` is for single latencies; ratios go on in processes of `pairs` pairs."""

    name: str
    timing: Timing
    pair_timing: Timing
    least_processes: int
    most_processes: int
    half_width: float  # a ratio is precise enough when its 95 % interval is no wider than this on either side


def _pairs(count: int) -> Timing:
    return Timing("mirrored", count, True, warm_up_runs=3, warm_up_s=0.05, min_runs=3, min_s=0.008, max_samples=32)


PROTOCOLS: dict[str, Protocol] = {
    "quick": Protocol(
        "quick",
        Timing("interleaved", 6, True, warm_up_runs=3, warm_up_s=0.1, min_runs=6, min_s=0.1, max_samples=100),
        _pairs(40),
        least_processes=2,
        most_processes=6,
        half_width=0.01,
    ),
    "standard": Protocol(
        "standard",
        Timing("interleaved", 16, True, warm_up_runs=5, warm_up_s=0.3, min_runs=8, min_s=0.13, max_samples=100),
        _pairs(60),
        least_processes=4,
        most_processes=10,
        half_width=0.005,
    ),
    "probe": Protocol(
        "probe",
        Timing("interleaved", 3, False, warm_up_runs=2, warm_up_s=0.002, min_runs=3, min_s=0.006, max_samples=24),
        _pairs(12),
        least_processes=1,
        most_processes=3,
        half_width=0.02,
    ),
}


def find_protocol(protocol: str | Protocol) -> Protocol:
    """A preset by name: quick, standard or probe."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise UsageError(f"no protocol is called {protocol!r}", hint=f"known protocols: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]


def measure(
    device: Device,
    files: Sequence[Path],
    *,
    runtime: RuntimeName,
    threads: int = 1,
    protocol: str | Protocol = "quick",
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Latency of each file, all in one runner process, visited in turn (A B A B ...) so that they share conditions.

    `on_progress` gets (visits done, visits in all).

    Raises:
        UsageError: a file is missing or cannot be run; names it.
        DeviceError: the device is in use or was lost.
    """
    settings = find_protocol(protocol)
    counter = _Counter(len(files) * settings.timing.rounds, on_progress)
    job = Job(runtime, _cases(files), threads=threads, timing=settings.timing)
    result = run_job(device, job, on_event=counter)
    fingerprint, cores = device.facts().fingerprint, device.facts().cores
    return [
        measurement_of(
            succeeded(case, file, runtime).visits,
            file=file.name,
            device=fingerprint,
            build=result.build,
            threads=threads,
            before=result.before,
            after=result.after,
            cores=cores,
        )
        for case, file in zip(result.cases.values(), files, strict=True)
    ]


def measure_ratio(
    device: Device,
    numerator: Path,
    denominator: Path,
    *,
    runtime: RuntimeName,
    threads: int = 1,
    protocol: str | Protocol = "quick",
    on_progress: Callable[[int, int], None] | None = None,
) -> Ratio:
    """Latency of one file over that of another: the median of ratios of neighbouring short visits (A B B A ...).

    Goes on in new processes (each lays memory out anew) until the interval is as narrow as the protocol wants and
    the halves agree, or its cap is met.

    Raises:
        UsageError: a file is missing or cannot be run; names it.
        DeviceError: the device is in use or was lost.
    """
    settings = find_protocol(protocol)
    files, fingerprint, cores = (numerator, denominator), device.facts().fingerprint, device.facts().cores
    counter = _Counter(2 * settings.pair_timing.rounds * settings.most_processes, on_progress)
    jobs: list[JobResult] = []
    groups: list[list[float]] = []
    while True:
        job = Job(runtime, _cases(files), threads=threads, timing=settings.pair_timing)
        jobs.append(run_job(device, job, on_event=counter))
        if jobs[-1].build != jobs[0].build:
            raise DeviceError("the runtime was changed while measuring", where=device.id, hint="measure again")
        pair = [succeeded(c, f, runtime).visits for c, f in zip(jobs[-1].cases.values(), files, strict=True)]
        groups.append([_latency(a) / _latency(b) for a, b in zip(*pair, strict=True)])
        ratios = [r for group in groups for r in group]
        value, (low, high) = float(np.median(ratios)), interval_over_groups(groups)
        visits = [[v for j in jobs for v in j.cases[str(i)].visits] for i in range(2)]
        quality, evidence = judge(
            value=value,
            low=low,
            high=high,
            series=ratios,
            latencies=[_latency(v) for v in visits[1]],
            before=jobs[0].before,
            after=jobs[-1].after,
            cores=cores,
            preempted_share=_preempted_share([*visits[0], *visits[1]]),
            disturbed_share=_disturbed_share([*visits[0], *visits[1]]),
            samples=len(ratios),
        )
        precise = (high - low) / 2 / value <= settings.half_width and quality == "stable"
        if len(jobs) >= settings.most_processes or (precise and len(jobs) >= settings.least_processes):
            break
    sides = [
        measurement_of(
            visits[i],
            file=files[i].name,
            device=fingerprint,
            build=jobs[0].build,
            threads=threads,
            before=jobs[0].before,
            after=jobs[-1].after,
            cores=cores,
        )
        for i in range(2)
    ]
    words = f"{len(ratios)} pairs in {len(jobs)} processes; {evidence}"
    return Ratio(
        ratio=value, low=low, high=high, quality=quality, evidence=words, numerator=sides[0], denominator=sides[1]
    )


def measure_peak_memory(device: Device, file: Path, *, runtime: RuntimeName) -> int:
    """Peak memory in bytes that loading and running the file adds to a process that has the runtime loaded.

    Raises:
        UsageError: the file is missing or cannot be run.
        DeviceError: the device does not tell, is in use, or was lost.
    """
    case = run_job(device, Job(runtime, _cases((file,)))).cases["0"]
    peak = succeeded(case, file, runtime).peak_memory_bytes
    if peak is None:
        raise DeviceError("this device does not tell peak memory", where=device.id, hint="it needs Linux's /proc")
    return peak


def measurement_of(
    visits: Sequence[Visit],
    *,
    file: str,
    device: str,
    build: RuntimeBuild,
    threads: int,
    before: Conditions,
    after: Conditions,
    cores: int,
    divide: Callable[[float], float] = lambda seconds: seconds,
) -> Measurement:
    """A measurement from its visits; `divide` turns a sample's seconds into what is measured (for probes)."""
    samples = [divide(s) for visit in visits for s in _clean(visit)]
    rounds = [divide(_latency(visit)) for visit in visits]
    value, (low, high) = float(np.median(samples)), interval_of_median(samples)
    quality, evidence = judge(
        value=value,
        low=low,
        high=high,
        series=rounds,
        latencies=rounds,
        before=before,
        after=after,
        cores=cores,
        preempted_share=_preempted_share(visits),
        disturbed_share=_disturbed_share(visits),
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
        before=before,
        after=after,
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


def _cases(files: Sequence[Path]) -> tuple[Case, ...]:
    return tuple(Case(str(number), file) for number, file in enumerate(files))


def _clean(visit: Visit) -> tuple[float, ...]:
    """Samples without preempted ones; all of them when nothing else is left."""
    return visit.clean or visit.seconds


def _latency(visit: Visit) -> float:
    return float(np.median(_clean(visit)))


def _preempted_share(visits: Sequence[Visit]) -> float:
    return sum(len(v.preempted) for v in visits) / max(1, sum(len(v.seconds) for v in visits))


def _disturbed_share(visits: Sequence[Visit]) -> float:
    return sum(not v.clean for v in visits) / max(1, len(visits))


class _Counter:
    """Counts visits for the progress shown to the user."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "samples":
            self._done += 1
            if self._on_progress is not None:
                self._on_progress(self._done, self._total)
