"""Staircases: kernels work on whole tiles of output channels, so cost grows in steps."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from functools import cached_property

import numpy as np

from edgeprune.latency.curve import fit_line
from edgeprune.records import Record

SWEEP = tuple(range(8, 137, 8))  # output channels at which a staircase is measured
STEPS = (8, 16, 32, 64)
PLATEAU = 0.03  # neighbours that differ by less cost the same


class Staircase(Record):
    """How the cost of one kind of operation grows with its output channels, as measured.

    `effective[i]` is the cost at `channels[i]` in units that make the last one equal to its channels: a width of
    40 whose tiles are computed as 64 has an effective width near 64. What the swept layer took at no width at all is
    in them, and is taken off by `at`: another layer of the kind has a fixed cost of its own, which its curve knows.
    """

    channels: tuple[int, ...]
    effective: tuple[float, ...]
    step: int

    def at(self, channels: int) -> float:
        """The effective width: of a width between two measured ones that of the next one; beyond the last one, every
        `step` channels cost `step` more."""
        if channels <= self.channels[-1]:
            fixed, slope = self._line
            return max(0.0, (self.effective[bisect.bisect_left(self.channels, channels)] - fixed) / slope)
        return float(math.ceil(channels / self.step) * self.step)

    @cached_property
    def _line(self) -> tuple[float, float]:
        """(cost at no width, of a channel): the line through whole steps, in the units of `effective`."""
        tiles = [math.ceil(channels / self.step) * self.step for channels in self.channels]
        fixed, slope = fit_line(list(zip(tiles, self.effective, strict=True)), resolution=1.0)
        return (fixed, slope) if slope > 0 else (0.0, 1.0)  # widths that cost nothing: as they were measured


def fit_staircase(seconds: Mapping[int, float]) -> Staircase:
    """A staircase from costs at widths (at least four of them).

    The step beyond the last width is the one for which the upper two thirds are most nearly affine in whole steps;
    the smallest one, which is no stair at all here, unless another halves the misfit.
    """
    channels = tuple(sorted(seconds))
    costs = np.maximum.accumulate([seconds[c] for c in channels])
    plateaus: list[list[float]] = []
    for cost in costs:
        if plateaus and cost <= plateaus[-1][0] * (1 + PLATEAU):
            plateaus[-1].append(cost)
        else:
            plateaus.append([cost])
    level = [float(np.mean(plateau)) for plateau in plateaus for _ in plateau]
    upper = len(channels) // 3
    misfits = {step: _misfit(channels[upper:], level[upper:], step) for step in STEPS}
    best = min(STEPS, key=lambda step: misfits[step])
    step = best if misfits[best] < 0.5 * misfits[STEPS[0]] else STEPS[0]
    tiled = math.ceil(channels[-1] / step) * step
    return Staircase(channels=channels, effective=tuple(tiled * value / level[-1] for value in level), step=step)


def _misfit(channels: tuple[int, ...], costs: list[float], step: int) -> float:
    """Sum of squares that an affine function of whole steps leaves over."""
    tiles = np.ceil(np.asarray(channels, np.float64) / step) * step
    design = np.stack([np.ones_like(tiles), tiles], axis=1)
    solution = np.linalg.lstsq(design, np.asarray(costs), rcond=None)[0]
    return float(np.sum((design @ solution - costs) ** 2))
