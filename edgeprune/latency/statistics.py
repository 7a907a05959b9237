"""The few statistics latencies need: medians, bootstrap intervals, drift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
_MIXTURE = 0.1  # c2 of `sequential_interval`: narrowest for about ten values
BLOCKS = 12  # neighbouring samples share what disturbs them, so whole blocks of them are resampled


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of the median by the moving-block bootstrap (Kuensch 1989); seeded.

    Blocks are about a twelfth of the series. One value gives itself twice.
    """
    series = np.asarray(values, np.float64)
    if series.size < 2:
        return float(series[0]), float(series[0])
    length = max(1, series.size // BLOCKS)
    count = -(-series.size // length)
    random = np.random.default_rng(0)
    medians = np.empty(RESAMPLES)
    for i in range(RESAMPLES):  # one at a time: all at once take gigabytes for minutes of samples
        starts = random.integers(0, series.size - length + 1, count)
        picked = (starts[:, None] + np.arange(length)).reshape(-1)[: series.size]
        medians[i] = np.median(series[picked])
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def interval_over_groups(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % interval of the median when values come in groups that differ (processes): groups, then values, are drawn.

    With fewer than three groups their spread cannot be seen, and all values are taken as one series.
    """
    if len(groups) < 3:
        return interval_of_median([v for group in groups for v in group])
    random = np.random.default_rng(0)
    arrays = [np.asarray(group, np.float64) for group in groups]
    medians = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        chosen = random.integers(0, len(arrays), len(arrays))
        medians[i] = np.median(np.concatenate([random.choice(arrays[g], arrays[g].size) for g in chosen]))
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)


def sequential_interval(values: Sequence[float], *, alpha: float = 0.01) -> tuple[float, float]:
    """An interval of the mean that may be looked at after every value: the chance that it *ever* misses is `alpha`.

    For independent normal values of unknown spread (of heavier tails it errs on the safe side). With n values, their
    mean m and variance s2 (over n), and a N(0, 1/c2) mixture over the standardized mean, the mixture's likelihood
    ratio against a mean of m + d is

        sqrt(c2 / (n + c2)) * ((n + c2) (s2 + d^2) / ((n + c2) s2 + c2 d^2)) ^ (n / 2),

    a non-negative martingale of expectation 1 whatever the spread, so that it reaches 1 / alpha with a chance of at
    most alpha (Lai, On confidence sequences, 1976; Wang and Ramdas, Anytime-valid t-tests and confidence sequences
    for Gaussian means with unknown variance, 2024). The interval holds the d that keep it below. Unbounded while the
    values are too few to tell.
    """
    series = np.asarray(values, np.float64)
    if series.size == 0:
        return -np.inf, np.inf
    half = sequential_half_width(series.size, float(series.std()), alpha=alpha)
    return float(series.mean()) - half, float(series.mean()) + half


def sequential_half_width(count: int, spread: float, *, alpha: float = 0.01) -> float:
    """Half the width of `sequential_interval` of so many values with this standard deviation (over n)."""
    limit = float((np.sqrt((count + _MIXTURE) / _MIXTURE) / alpha) ** (2 / count))
    left = count + _MIXTURE - limit * _MIXTURE
    return float(np.sqrt((limit - 1) * (count + _MIXTURE) / left)) * spread if left > 0 else float("inf")


def drift(values: Sequence[float]) -> float:
    """Median of the second half over the median of the first half, less one."""
    series = np.asarray(values, np.float64)
    if series.size < 4:
        return 0.0
    half = series.size // 2
    return float(np.median(series[half:]) / np.median(series[:half]) - 1)


def spread(values: Sequence[float]) -> float:
    """Inter-quartile range over the median."""
    low, middle, high = np.percentile(np.asarray(values, np.float64), (25, 50, 75))
    return float((high - low) / middle)
