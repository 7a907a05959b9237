"""How far a latency can be trusted, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

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
    before: Conditions,
    after: Conditions,
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
        preempted_share: share of the samples in which the scheduler took the core away; they are left out where
            others are left.
        disturbed_share: share of the visits that have no other samples, so that these had to be used.

    Stable: half width at most 1.5 %, halves within 2 %, at most a tenth of the visits disturbed. Throttled:
    latencies rose by more than 2 % while the clock fell by more than 3 %. Else noisy.
    """
    half_width, moved, slower = (high - low) / 2 / value, drift(series), drift(latencies)
    clock = _frequency_change(before, after)
    evidence = "; ".join(
        [
            f"interval +-{half_width:.2%} of {samples} samples",
            f"second half {moved:+.2%} against the first",
            *([f"clock {clock:+.1%}"] if clock is not None else []),
            *_surroundings(before, after, cores),
            f"core taken away in {preempted_share:.0%} of the samples",
            *([f"and in all samples of {disturbed_share:.0%} of the visits"] if disturbed_share else []),
        ]
    )
    if clock is not None and clock < -FREQUENCY_DROP and slower > DRIFT_LIMIT:
        return "throttled", f"{slower:+.1%} slower at the end while the clock fell; {evidence}"
    if half_width <= HALF_WIDTH_LIMIT and abs(moved) <= DRIFT_LIMIT and disturbed_share <= DISTURBED_LIMIT:
        return "stable", evidence
    return "noisy", evidence


def _frequency_change(before: Conditions, after: Conditions) -> float | None:
    if not before.frequency_mhz or not after.frequency_mhz:
        return None
    return fmean(after.frequency_mhz) / fmean(before.frequency_mhz) - 1


def _surroundings(before: Conditions, after: Conditions, cores: int) -> list[str]:
    words = []
    if before.load_1min is not None and after.load_1min is not None:
        words.append(f"load {max(before.load_1min, after.load_1min):.1f} on {cores} cores")
    seconds = (after.time - before.time) * cores
    if before.cpu_steal_s is not None and after.cpu_steal_s is not None and seconds > 0:
        words.append(f"steal {(after.cpu_steal_s - before.cpu_steal_s) / seconds:.1%}")
    if hot := after.temperature_c:
        words.append(f"up to {max(hot.values()):.0f} C")
    return words
