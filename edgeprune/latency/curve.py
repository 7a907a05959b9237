"""How the cost of one operation grows with its widths: a few terms, fitted to measured points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

Point = tuple[float, float]  # input channels, effective output channels
Array = npt.NDArray[np.float64]

ROUNDS = 5  # of weighing outliers down
HUBER = 2.0  # times the typical misfit: points farther off count less
EDGE = 0.02  # so much beyond the measured widths is not yet outside


@dataclass(frozen=True)
class Curve:
    """cost = fixed + per_product * in * out + per_in * in + per_out * out, no term negative.

    The terms are what a kernel does: it starts, multiplies, reads its input and writes its output. So cost never falls
    when a width grows, and one that is out of range is still a guess worth having.
    """

    fixed: float
    per_product: float
    per_in: float
    per_out: float
    ins: tuple[float, float]  # the least and the largest width measured
    outs: tuple[float, float]
    misfit: float  # typical relative distance of the points

    def at(self, point: Point) -> float:
        i, o = point
        return self.fixed + self.per_product * i * o + self.per_in * i + self.per_out * o

    def covers(self, point: Point) -> bool:
        """Whether both widths lie within what was measured."""
        sides = zip(point, (self.ins, self.outs), strict=True)
        return all(low * (1 - EDGE) <= side <= high * (1 + EDGE) for side, (low, high) in sides)


def fit_curve(points: Sequence[tuple[Point, float]], *, square: bool, resolution: float) -> Curve:
    """The curve that misses the points least, in relative terms (Lawson and Hanson's non-negative least squares).

    Args:
        points: ((in, out), cost), at least one.
        square: both widths are one axis; then only `fixed` and `per_out` count.
        resolution: of the costs; misses of smaller ones are taken relative to it.
    """
    ins, outs = (np.array([point[side] for point, _ in points], np.float64) for side in range(2))
    costs = np.array([cost for _, cost in points], np.float64)
    terms = np.stack([np.ones_like(outs), outs] if square else [np.ones_like(outs), ins * outs, ins, outs], axis=1)
    units = np.maximum(costs, resolution)
    solution = _robust(terms / units[:, None], costs / units)
    misfit = float(np.median(np.abs(terms @ solution - costs) / units))
    fixed, product, per_in, per_out = (solution[0], 0.0, 0.0, solution[1]) if square else solution
    bounds = [(float(side.min()), float(side.max())) for side in (ins, outs)]
    return Curve(float(fixed), float(product), float(per_in), float(per_out), bounds[0], bounds[1], misfit)


def _robust(terms: Array, goal: Array) -> Array:
    """x >= 0 with terms @ x near the goal; a point far off, as a disturbed measurement is, counts less (Huber)."""
    weights = np.ones(len(terms))
    solution = np.zeros(terms.shape[1])
    for _ in range(ROUNDS):
        solution = nnls(terms * weights[:, None], goal * weights)[0]
        misses = np.abs(terms @ solution - goal)
        near = HUBER * max(float(np.median(misses)), 1e-9)
        weights = np.sqrt(np.minimum(1.0, near / np.maximum(misses, 1e-12)))
    return solution
