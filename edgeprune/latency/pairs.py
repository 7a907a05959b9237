"""Files timed in turns with another: what `measure_ratios` and `compare` (compare.py) share. They differ in when they
stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeprune.devices.base import Device
from edgeprune.devices.conditions import RuntimeName
from edgeprune.devices.events import Visit
from edgeprune.devices.jobs import Job, JobResult, Timing
from edgeprune.errors import DeviceError
from edgeprune.latency.isolation import timed_job
from edgeprune.latency.measurement import Measurement, Quality, Ratio
from edgeprune.latency.presets import Protocol, find_protocol
from edgeprune.latency.protocol import (
    VisitCounter,
    cases_of,
    disturbed_share,
    latency_of,
    measurement_of,
    preempted_share,
    succeeded,
)
from edgeprune.latency.quality import judge
from edgeprune.latency.statistics import interval_over_groups
from edgeprune.progress import SILENT, Progress

SPREAD_SEEN = 3  # rounds at least, where the spread over processes counts: `interval_over_groups` sees none of fewer


@dataclass(frozen=True)
class Round:
    """The visits to numerator and denominator in turns, and the jobs that made them (one, where a process ran both)."""

    visits: tuple[Sequence[Visit], Sequence[Visit]]
    jobs: tuple[JobResult, JobResult]

    @property
    def builds(self) -> tuple[str, str]:
        return self.jobs[0].build.id, self.jobs[1].build.id

    @property
    def ratios(self) -> list[float]:
        """Numerator over denominator of each pair of neighbouring visits."""
        above, below = ([latency_of(visit) for visit in side] for side in self.visits)
        return [n / d for n, d in zip(above, below, strict=True)]


def check_builds(rounds: Sequence[Round], device: Device) -> None:
    """Check that the last round ran what the first one ran.

    Raises:
        DeviceError: the runtime was changed.
    """
    if rounds[-1].builds != rounds[0].builds:
        raise DeviceError("the runtime was changed while measuring", where=device.id, hint="measure again")


def sides_of(
    device: Device, rounds: Sequence[Round], files: tuple[Path, Path], threads: int
) -> tuple[Measurement, Measurement]:
    """A measurement of each file from all rounds."""
    facts = device.facts()
    above, below = (
        measurement_of(
            [visit for one in rounds for visit in one.visits[side]],
            file=file.name,
            device=facts.fingerprint,
            build=rounds[0].jobs[side].build,
            threads=threads,
            watched=[one.jobs[side].watched for one in rounds],
            cores=facts.cores,
        )
        for side, file in enumerate(files)
    )
    return above, below


def quality_of(
    device: Device, rounds: Sequence[Round], *, value: float, low: float, high: float
) -> tuple[Quality, str]:
    """How far a ratio can be trusted, and why."""
    every = [visit for one in rounds for side in one.visits for visit in side]
    ratios = [ratio for one in rounds for ratio in one.ratios]
    return judge(
        value=value,
        low=low,
        high=high,
        series=ratios,
        latencies=[latency_of(visit) for one in rounds for visit in one.visits[1]],
        watched=[one.jobs[1].watched for one in rounds],
        cores=device.facts().cores,
        preempted_share=preempted_share(every),
        disturbed_share=disturbed_share(every),
        samples=len(ratios),
    )


def measure_ratio(
    device: Device,
    numerator: Path,
    denominator: Path,
    *,
    runtime: RuntimeName,
    against: RuntimeName | None = None,
    threads: int = 1,
    protocol: str | Protocol = "quick",
    progress: Progress = SILENT,
) -> Ratio:
    """Latency of one file over that of another: `measure_ratios` of a single numerator."""
    (ratio,) = measure_ratios(
        device,
        [numerator],
        denominator,
        runtime=runtime,
        against=against,
        threads=threads,
        protocol=protocol,
        progress=progress,
    )
    return ratio


def measure_ratios(
    device: Device,
    numerators: Sequence[Path],
    denominator: Path,
    *,
    runtime: RuntimeName,
    against: RuntimeName | None = None,
    threads: int = 1,
    protocol: str | Protocol = "quick",
    progress: Progress = SILENT,
) -> list[Ratio]:
    """Latency of each of some files over that of another: the median of ratios of neighbouring short visits (A B B A
    ..., or A B C C B A ... where several numerators share the visits to the denominator: then a pair's visits are of
    one round, not next to each other).

    Goes on in new processes (each lays memory out anew) until the interval of every ratio is as narrow as the protocol
    wants and the halves agree, or its cap is met.

    Args:
        runtime: of all files.
        against: the denominator's, where it is another one. Files of two runtimes cannot share a process: their
            processes take turns, and there are `SPREAD_SEEN` rounds of them or more, for what differs is the process.

    Raises:
        UsageError: a file is missing or cannot be run; names it.
        DeviceError: the device is in use or was lost.
    """
    settings, files = find_protocol(protocol), (*numerators, denominator)
    runtimes = (runtime, against or runtime)
    apart = runtimes[0] != runtimes[1]
    least = max(settings.least_processes, SPREAD_SEEN if apart else 1)
    most = max(settings.most_processes, least)
    counter = VisitCounter(files, len(files) * settings.pair_timing.rounds * most, progress)
    rounds: list[list[Round]] = [[] for _ in numerators]
    while True:
        swapped = len(rounds[0]) % 2 == 1
        measured = _apart if apart else _together
        for mine, one in zip(
            rounds, measured(device, files, runtimes, settings.pair_timing, threads, counter, swapped), strict=True
        ):
            mine.append(one)
            check_builds(mine, device)
        ratios = [
            _ratio_of(device, mine, (file, denominator), threads, apart=apart)
            for mine, file in zip(rounds, numerators, strict=True)
        ]
        done = len(rounds[0])
        if done >= most or (done >= least and all(_is_precise(one, settings.half_width) for one in ratios)):
            return ratios


def _ratio_of(device: Device, rounds: Sequence[Round], files: tuple[Path, Path], threads: int, *, apart: bool) -> Ratio:
    """What the rounds say of a file over another, so far."""
    groups = [one.ratios for one in rounds]
    value, (low, high) = float(np.median([r for group in groups for r in group])), interval_over_groups(groups)
    quality, evidence = quality_of(device, rounds, value=value, low=low, high=high)
    above, below = sides_of(device, rounds, files, threads)
    words = f"{sum(map(len, groups))} pairs in {len(rounds) * (2 if apart else 1)} processes; {evidence}"
    return Ratio(ratio=value, low=low, high=high, quality=quality, evidence=words, numerator=above, denominator=below)


def _is_precise(ratio: Ratio, half_width: float) -> bool:
    return (ratio.high - ratio.low) / 2 / ratio.ratio <= half_width and ratio.quality == "stable"


def _together(
    device: Device,
    files: Sequence[Path],
    runtimes: tuple[RuntimeName, RuntimeName],
    timing: Timing,
    threads: int,
    counter: VisitCounter,
    _: bool,
) -> list[Round]:
    """All files in one process, visited in turns."""
    job = timed_job(device, Job(runtimes[0], cases_of(files), threads=threads, timing=timing), on_event=counter)
    *above, below = _visits(job, files, runtimes[0])
    return [Round((visits, below), (job, job)) for visits in above]


def _apart(
    device: Device,
    files: Sequence[Path],
    runtimes: tuple[RuntimeName, RuntimeName],
    timing: Timing,
    threads: int,
    counter: VisitCounter,
    swapped: bool,
) -> list[Round]:
    """The numerators in one process and the denominator in another, one right after the other; the denominator first
    in every other round."""
    sides, jobs = (files[:-1], files[-1:]), dict[int, JobResult]()
    for side in (1, 0) if swapped else (0, 1):
        job = Job(runtimes[side], cases_of(sides[side]), threads=threads, timing=timing)
        jobs[side] = timed_job(device, job, on_event=counter)
    above, (below,) = (_visits(jobs[side], sides[side], runtimes[side]) for side in (0, 1))
    return [Round((visits, below), (jobs[0], jobs[1])) for visits in above]


def _visits(job: JobResult, files: Sequence[Path], runtime: RuntimeName) -> list[Sequence[Visit]]:
    return [succeeded(case, file, runtime).visits for case, file in zip(job.cases.values(), files, strict=True)]
