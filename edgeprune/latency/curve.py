"""How the cost of one operation grows with its widths: a few terms, fitted to measured points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Point = tuple[float, float]  # input channels, effective output channels
Array = npt.NDArray[np.float64]

ROUNDS = 5  # of weighing outliers down
HUBER = 2.0  # times the typical miss: points farther off count less
EDGE = 0.02  # so much beyond the measured widths is not yet outside
KNEES = (0.25, 0.5, 0.75)  # quantiles of the measured sizes at which a knee is looked for
LEAST_FOR_A_KNEE = 4  # sizes
PENALTY = 5.0  # a knee has to lower n * ln(mean square) by so much (Schwarz's criterion asks 2 ln n for two numbers)
NOISE = 1e-3  # relative misses below this are no evidence


@dataclass(frozen=True)
class Curve:
    """cost = fixed + per_size * size + per_in * in + per_out * out + beyond * max(0, size - knee), no term negative.

    The size is in * out, or out where both widths are one axis. The terms are what a kernel does: it starts,
    multiplies, reads its input, writes its output, and beyond a knee its data no longer stays in the cache. So cost
    never falls when a width grows, and what is out of range is still a guess worth having.
    """

    fixed: float
    per_size: float
    per_in: float
    per_out: float
    beyond: float
    knee: float
    square: bool
    ins: tuple[float, float]  # the least and the largest width measured
    outs: tuple[float, float]

    def at(self, point: Point) -> float:
        i, o = point
        size = o if self.square else i * o
        smooth = self.fixed + self.per_size * size + self.per_in * i + self.per_out * o
        return smooth + self.beyond * max(0.0, size - self.knee)

    def covers(self, point: Point) -> bool:
        """Whether both widths lie within what was measured."""
        sides = zip(point, (self.ins, self.outs), strict=True)
        return all(low * (1 - EDGE) <= side <= high * (1 + EDGE) for side, (low, high) in sides)


def fit_curve(points: Sequence[tuple[Point, float]], *, square: bool, resolution: float) -> Curve:
    """The curve that misses the points least, in relative terms (Lawson and Hanson's non-negative least squares).

    Args:
        points: ((in, out), cost), at least one.
        square: both widths are one axis.
        resolution: of the costs; misses of smaller ones are taken relative to it.
    """
    ins, outs = (np.array([point[side] for point, _ in points], np.float64) for side in range(2))
    costs = np.array([cost for _, cost in points], np.float64)
    sizes = outs if square else ins * outs
    plain = [np.ones_like(sizes), sizes] if square else [np.ones_like(sizes), sizes, ins, outs]
    units, different = np.maximum(costs, resolution), np.unique(sizes)
    solution, misfit = _robust(np.stack(plain, axis=1) / units[:, None], costs / units)
    knee, beyond, best = 0.0, 0.0, misfit
    for quantile in KNEES if len(different) >= LEAST_FOR_A_KNEE else ():
        place = float(np.quantile(different, quantile))
        terms = np.stack([*plain, np.maximum(0.0, sizes - place)], axis=1)
        bent, misfit = _robust(terms / units[:, None], costs / units)
        if misfit + PENALTY < best:
            solution, knee, beyond, best = bent[:-1], place, float(bent[-1]), misfit + PENALTY
    fixed, per_size, per_in, per_out = (float(x) for x in (*solution, 0.0, 0.0)[:4])
    (in_low, in_high), (out_low, out_high) = ((float(side.min()), float(side.max())) for side in (ins, outs))
    return Curve(fixed, per_size, per_in, per_out, beyond, knee, square, (in_low, in_high), (out_low, out_high))


def fit_line(points: Sequence[tuple[float, float]], *, resolution: float) -> tuple[float, float]:
    """(value at zero, slope), neither negative, of the line that misses (x, y) least in relative terms."""
    xs, ys = (np.array(side, np.float64) for side in zip(*points, strict=True))
    units = np.maximum(ys, resolution)
    (fixed, slope), _ = _robust(np.stack([np.ones_like(xs), xs], axis=1) / units[:, None], ys / units)
    return float(fixed), float(slope)


def _robust(terms: Array, goal: Array) -> tuple[Array, float]:
    """x >= 0 with terms @ x near the goal, and n * ln(mean square of what is missed).

    A point far off, as a disturbed measurement is, counts less (Huber's weights).
    """
    weights = np.ones(len(terms))
    for _ in range(ROUNDS):
        solution = nnls(terms * weights[:, None], goal * weights)[0]
        misses = np.abs(terms @ solution - goal)
        near = HUBER * max(float(np.median(misses)), 1e-9)
        weights = np.sqrt(np.minimum(1.0, near / np.maximum(misses, 1e-12)))
    return solution, len(goal) * math.log(float(np.mean(misses**2)) + NOISE**2)
