"""Presets of the measuring protocol: how long, how often, and what is done when the device gets hot."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.devices.jobs import Timing
from edgeprune.errors import UsageError


@dataclass(frozen=True)
class Protocol:
    """`timing` is for single latencies; ratios go on in processes of `pair_timing`'s pairs."""

    name: str
    timing: Timing
    pair_timing: Timing
    least_processes: int
    most_processes: int
    half_width: float  # a ratio is precise enough when its 95 % interval is no wider than this on either side
    apart: bool = False  # each file in a process of its own, after a pause
    pause_s: float = 0.0  # between files that are measured apart, and before a throttled measurement is repeated
    retries: int = 0  # of what was throttled


def _pairs(count: int) -> Timing:
    return Timing("mirrored", count, True, warm_up_runs=3, warm_up_s=0.05, min_runs=3, min_s=0.008, max_samples=32)


PROTOCOLS: dict[str, Protocol] = {
    "quick": Protocol(
        "quick",
        Timing(
            "interleaved",
            6,
            True,
            warm_up_runs=3,
            warm_up_s=0.1,
            min_runs=6,
            min_s=0.1,
            max_samples=100,
            steady=0.02,
            warm_up_most_s=1.0,
        ),
        _pairs(40),
        least_processes=2,
        most_processes=6,
        half_width=0.01,
        pause_s=5.0,
        retries=1,
    ),
    "standard": Protocol(
        "standard",
        Timing(
            "interleaved",
            16,
            True,
            warm_up_runs=5,
            warm_up_s=0.3,
            min_runs=8,
            min_s=0.13,
            max_samples=100,
            steady=0.02,
            warm_up_most_s=5.0,
        ),
        _pairs(60),
        least_processes=4,
        most_processes=10,
        half_width=0.005,
        pause_s=30.0,
        retries=2,
    ),
    # MLPerf Mobile, single stream: at least 1024 runs and 60 seconds, 90th percentile, five minutes between files.
    "mlperf": Protocol(
        "mlperf",
        Timing(
            "sequential",
            60,
            True,
            warm_up_runs=5,
            warm_up_s=1.0,
            min_runs=18,
            min_s=1.0,
            max_samples=2000,
            steady=0.02,
            warm_up_most_s=20.0,
        ),
        _pairs(60),
        least_processes=4,
        most_processes=20,
        half_width=0.005,
        apart=True,
        pause_s=300.0,
        retries=4,
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
    """A preset by name: quick, standard, mlperf or probe."""
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise UsageError(f"no protocol is called {protocol!r}", hint=f"known protocols: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]
