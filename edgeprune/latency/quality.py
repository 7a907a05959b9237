"""How far a latency can be trusted, and why, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median

from edgeprune.latency.measurement import Conditions, Quality
from edgeprune.latency.statistics import drift

HALF_WIDTH_LIMIT = 0.015
DRIFT_LIMIT = 0.02
DISTURBED_LIMIT = 0.1
FREQUENCY_DROP = 0.03


def judge(
    *,
    value: float,
    low: float,
    high: float,
    series: Sequence[float],
    latencies: Sequence[float],
    watched: Sequence[Sequence[Conditions]],
    cores: int,
    preempted_share: float,
    disturbed_share: float,
    samples: int,
) -> tuple[Quality, str]:
    """Judge a figure from its interval and its course in time.

    Args:
        value, low, high: the figure and its 95 % interval.
        series: the figure as it went (round medians, pair ratios); its halves must agree.
        latencies: seconds as they went; that they rise while the clock falls means throttling.
        watched: the conditions of each runner process: before, during and after.
        preempted_share: share of the samples in which the scheduler took the core away; they are left out where
            others are left.
        disturbed_share: share of the visits that have no other samples, so that these had to be used.

    Stable: half width at most 1.5 %, halves within 2 %, at most a tenth of the visits disturbed. Throttled:
    latencies rose by more than 2 % while the clock fell by more than 3 %. Else noisy.
    """
    half_width, moved, slower = (high - low) / 2 / value, drift(series), drift(latencies)
    clock = _frequency_change(watched)
    evidence = "; ".join(
        [
            f"interval +-{half_width:.2%} of {samples} samples",
            f"second half {moved:+.2%} against the first",
            *([f"clock {clock:+.1%}"] if clock is not None else []),
            *_surroundings(watched, cores),
            f"core taken away in {preempted_share:.0%} of the samples",
            *([f"and in all samples of {disturbed_share:.0%} of the visits"] if disturbed_share else []),
        ]
    )
    if clock is not None and clock < -FREQUENCY_DROP and slower > DRIFT_LIMIT:
        return "throttled", f"{slower:+.1%} slower at the end while the clock fell; {evidence}"
    if half_width <= HALF_WIDTH_LIMIT and abs(moved) <= DRIFT_LIMIT and disturbed_share <= DISTURBED_LIMIT:
        return "stable", evidence
    return "noisy", evidence


def _frequency_change(watched: Sequence[Sequence[Conditions]]) -> float | None:
    """The clock in the later half of what was seen against the earlier one: medians of the mean over the cores."""
    clocks = [fmean(seen.frequency_mhz) for process in watched for seen in process if seen.frequency_mhz]
    half = (len(clocks) + 1) // 2
    return median(clocks[-half:]) / median(clocks[:half]) - 1 if len(clocks) > 1 else None


def _surroundings(watched: Sequence[Sequence[Conditions]], cores: int) -> list[str]:
    words = []
    every = [seen for process in watched for seen in process]
    if loads := [seen.load_1min for seen in every if seen.load_1min is not None]:
        words.append(f"load {max(loads):.1f} on {cores} cores")
    if (others := _share(watched, cores, _others_s)) is not None:
        words.append(f"others kept the cores busy for {others:.0%}")
    if (steal := _share(watched, cores, lambda seen: seen.cpu_steal_s)) is not None:
        words.append(f"steal {steal:.1%}")
    if hot := [degrees for seen in every for degrees in seen.temperature_c.values()]:
        words.append(f"up to {max(hot):.0f} C")
    return words


def _others_s(seen: Conditions) -> float | None:
    return None if seen.cpu_busy_s is None or seen.own_s is None else seen.cpu_busy_s - seen.own_s


def _share(
    watched: Sequence[Sequence[Conditions]], cores: int, counter: Callable[[Conditions], float | None]
) -> float | None:
    """What a counter of core seconds has gained in the processes, as a share of all core seconds in them."""
    gained = spent = 0.0
    for process in watched:
        first, last = process[0], process[-1]
        begin, end = counter(first), counter(last)
        if begin is not None and end is not None and first.clock_s is not None and last.clock_s is not None:
            gained += end - begin
            spent += (last.clock_s - first.clock_s) * (last.cpus or cores)
    return max(0.0, gained / spent) if spent > 0 else None
