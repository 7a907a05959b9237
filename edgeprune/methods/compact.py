"""Widths of compact networks: every layer alike, or one threshold over all scores.

Khan et al., Pruning Compact ConvNets for Efficient Inference (arXiv 2301.04502, section 3). The number in the rule is
the share of units to remove. Neither rule knows what a unit costs, which is what the judged allocator adds; they are
here to be compared with, and for budgets as published.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgeprune.space.ranking import Scores


class Uniform:
    """Every group loses the same share of its units."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes

    def kept(self, share: float) -> dict[str, int]:
        return {name: math.ceil((1 - share) * size - 1e-9) for name, size in self._sizes.items()}


class GlobalThreshold:
    """One threshold over the scores of all groups: what scores at most as much goes."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self._all = np.sort(np.concatenate([np.asarray(values) for values in scores.values()]))

    def kept(self, share: float) -> dict[str, int]:
        threshold = self._all[max(0, math.ceil(share * len(self._all)) - 1)]
        return {name: int((values > threshold).sum()) for name, values in self._scores.items()}
