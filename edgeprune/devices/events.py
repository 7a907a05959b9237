"""What a runner tells of a case, read with care: a device may say anything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

MOST_SAMPLES = 10_000_000
MOST_BYTES = 1 << 50


@dataclass(frozen=True)
class Visit:
    """One timed visit: samples in seconds for one run; `preempted` are the indices where the core was taken away."""

    round: int
    seconds: tuple[float, ...]
    preempted: tuple[int, ...]
    runs_per_sample: int
    steal_s: float | None

    @property
    def clean(self) -> tuple[float, ...]:
        """The samples in which nobody took the core away."""
        bad = set(self.preempted)
        return tuple(s for i, s in enumerate(self.seconds) if i not in bad)


@dataclass(frozen=True)
class KernelTimes:
    """Microseconds by run and kernel, (runs, kernels), the kernels in the order in which they ran, and by whole run."""

    names: tuple[str, ...]
    times_us: tuple[tuple[int, ...], ...]
    whole_us: tuple[int, ...]


def read_visit(event: dict[str, Any]) -> Visit:
    """A visit.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    seconds = tuple(_number(one) for one in event["seconds"])
    if not 0 < len(seconds) <= MOST_SAMPLES or not all(one > 0 for one in seconds):
        raise ValueError("times are above 0, and there is one at least")
    preempted = tuple(_whole(place, len(seconds) - 1) for place in event["preempted"])
    runs = _whole(event["runs_per_sample"], MOST_SAMPLES)
    if not runs:
        raise ValueError("no run in a sample")
    steal = event["steal_s"]
    return Visit(
        round=_whole(event["round"], MOST_SAMPLES),
        seconds=seconds,
        preempted=preempted,
        runs_per_sample=runs,
        steal_s=None if steal is None else _number(steal),
    )


def read_kernels(event: dict[str, Any]) -> KernelTimes:
    """The times of kernels.

    Raises:
        ValueError, KeyError, TypeError: they are none.
    """
    names = tuple(str(name) for name in event["names"])
    times = tuple(tuple(_whole(one, MOST_BYTES) for one in run) for run in event["times_us"])
    whole = tuple(_whole(one, MOST_BYTES) for one in event["whole_us"])
    if len(times) != len(whole) or any(len(run) != len(names) for run in times):
        raise ValueError("not one time for each kernel and run")
    return KernelTimes(names, times, whole)


def read_bytes(value: object) -> int | None:
    """Bytes of memory; None where they are not told.

    Raises:
        ValueError: it is no number of bytes.
    """
    return None if value is None else _whole(value, MOST_BYTES)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:50]!r} is no number")
    return float(value)


def _whole(value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{str(value)[:50]!r} is no number from 0 to {most}")
    return value
