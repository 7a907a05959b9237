"""The few statistics latencies need: medians, bootstrap intervals, drift."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
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
    starts = random.integers(0, series.size - length + 1, (RESAMPLES, count))
    picked = (starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, : series.size]
    low, high = np.percentile(np.median(series[picked], axis=1), (2.5, 97.5))
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
