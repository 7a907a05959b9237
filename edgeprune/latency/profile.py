"""Where the time of a file goes: each kernel as the runtime fused it, timed in place by the runtime itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeprune.devices.base import Device
from edgeprune.devices.conditions import RuntimeBuild
from edgeprune.devices.jobs import Case, Job
from edgeprune.devices.runtimes import runtime_of
from edgeprune.errors import UsageError
from edgeprune.latency.isolation import timed_job
from edgeprune.latency.measurement import Quality
from edgeprune.latency.protocol import succeeded
from edgeprune.latency.quality import judge
from edgeprune.latency.statistics import interval_of_median
from edgeprune.records import Record

RUNS = 400
BLOCK = 10  # runs: the profiler counts whole microseconds, and means over so many tell tenths of one


class Kernel(Record):
    """One kernel in one place. Seconds, with the 95 % bootstrap interval of the median over blocks of runs."""

    name: str
    median_s: float
    low_s: float
    high_s: float
    share: float  # of the sum over all kernels


class Profile(Record):
    """The kernels of a file in the order in which they run. The profiler costs time itself: `whole_s` has it in."""

    file: str
    device: str  # fingerprint
    runtime: RuntimeBuild
    threads: int
    runs: int
    kernels: tuple[Kernel, ...]
    sum_s: float
    whole_s: float
    whole_low_s: float
    whole_high_s: float
    quality: Quality  # of the whole runs
    evidence: str


def profile(device: Device, file: Path, *, threads: int = 1, runs: int = RUNS) -> Profile:
    """Time each kernel of a .tflite file on a device.

    Args:
        runs: how many runs are profiled, after a warm-up; at least 40.

    Raises:
        UsageError: the file cannot be run, its runtime tells no kernels (only LiteRT does), or too few runs.
        DeviceError: the device is in use, was lost, or stays too hot.
    """
    if runs < 4 * BLOCK:
        raise UsageError(f"{runs} runs are too few to tell kernels apart", hint=f"ask for {4 * BLOCK} at least")
    runtime = runtime_of(file)
    if runtime != "litert":
        raise UsageError(f"{runtime} tells no kernels", where=str(file), hint="profile the .tflite file")
    result = timed_job(device, Job(runtime, (Case("0", file),), threads=threads, profile_runs=runs))
    found = succeeded(result.cases["0"], file, runtime).kernels
    assert found is not None  # it succeeded
    blocks = len(found.whole_us) // BLOCK
    times = np.array(found.times_us[: blocks * BLOCK], np.float64).reshape(blocks, BLOCK, -1).mean(axis=1) * 1e-6
    whole = np.array(found.whole_us[: blocks * BLOCK], np.float64).reshape(blocks, BLOCK).mean(axis=1) * 1e-6
    medians = np.median(times, axis=0)
    total = float(medians.sum()) or 1.0
    kernels = []
    for name, series, median in zip(found.names, times.T, medians, strict=True):
        low, high = interval_of_median(series.tolist())
        share = float(median) / total
        kernels.append(Kernel(name=name, median_s=float(median), low_s=low, high_s=high, share=share))
    median, (low, high) = float(np.median(whole)), interval_of_median(whole.tolist())
    quality, evidence = judge(
        value=median,
        low=low,
        high=high,
        series=whole.tolist(),
        latencies=whole.tolist(),
        watched=[result.watched],
        cores=device.facts().cores,
        preempted_share=0.0,  # the profiler does not tell
        disturbed_share=0.0,
        samples=runs,
    )
    return Profile(
        file=file.name,
        device=device.facts().fingerprint,
        runtime=result.build,
        threads=threads,
        runs=runs,
        kernels=tuple(kernels),
        sum_s=float(medians.sum()),
        whole_s=median,
        whole_low_s=low,
        whole_high_s=high,
        quality=quality,
        evidence=evidence,
    )
