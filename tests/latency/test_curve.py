"""Curves: the truth is found again, cost never falls with width, and one disturbed point does not bend them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.latency.curve import Curve, fit_curve, fit_line

WIDTHS = (8.0, 16.0, 40.0, 64.0, 96.0)
GRID = list(itertools.product(WIDTHS, WIDTHS))
TERM = st.floats(0, 10)


def fitted(costs: dict[tuple[float, float], float], *, square: bool = False) -> Curve:
    return fit_curve(list(costs.items()), square=square, resolution=1e-9)


@settings(max_examples=60)
@given(st.floats(0.1, 10), TERM, TERM, TERM)
def test_sums_of_the_terms_are_found_again(fixed: float, product: float, per_in: float, per_out: float) -> None:
    curve = fitted({(i, o): fixed + product * i * o + per_in * i + per_out * o for i, o in GRID})
    for i, o in itertools.product((10.0, 50.0, 90.0), repeat=2):
        assert curve.at((i, o)) == pytest.approx(fixed + product * i * o + per_in * i + per_out * o, rel=1e-4)


@given(st.floats(0.1, 10), TERM)
def test_one_axis_is_a_line(fixed: float, per_out: float) -> None:
    curve = fitted({(c, c): fixed + per_out * c for c in WIDTHS}, square=True)
    assert curve.at((50.0, 50.0)) == pytest.approx(fixed + per_out * 50, rel=1e-4)


def test_a_knee_where_the_cache_ends_is_found() -> None:
    def truth(c: float) -> float:
        return 1 + 0.1 * c + 0.3 * max(0.0, c - 100)

    curve = fitted({(float(c), float(c)): truth(c) for c in range(20, 201, 10)}, square=True)
    assert curve.beyond > 0
    for c in (30, 90, 150, 195):
        assert curve.at((c, c)) == pytest.approx(truth(c), rel=0.08)
    smooth = fitted({(c, c): 1 + 0.1 * c for c in WIDTHS}, square=True)
    assert smooth.beyond == 0


@settings(max_examples=60)
@given(
    st.lists(st.floats(1, 100), min_size=len(GRID), max_size=len(GRID)),
    st.floats(1, 200),
    st.floats(1, 200),
    st.floats(0, 50),
)
def test_cost_never_falls_with_width_whatever_was_measured(costs: list[float], i: float, o: float, more: float) -> None:
    curve = fitted(dict(zip(GRID, costs, strict=True)))
    here = curve.at((i, o))
    assert here >= 0
    assert curve.at((i + more, o)) >= here
    assert curve.at((i, o + more)) >= here


def test_a_disturbed_point_hardly_counts() -> None:
    costs = {(i, o): 5 + 0.01 * i * o for i, o in GRID}
    calm = fitted(costs).at((50.0, 50.0))
    assert fitted({**costs, (40.0, 64.0): 3 * costs[40.0, 64.0]}).at((50.0, 50.0)) == pytest.approx(calm, rel=0.02)


def test_what_the_clock_cannot_tell_does_not_rule() -> None:
    """A kernel of a fifth of a microsecond reads as 0: that is no reason to take all for nothing."""
    costs = {(i, o): 0.01e-6 * i * o for i, o in GRID}
    costs[8.0, 8.0] = 0.0
    curve = fit_curve(list(costs.items()), square=False, resolution=1e-6)
    assert curve.at((64.0, 64.0)) == pytest.approx(0.01e-6 * 64 * 64, rel=0.05)


def test_it_knows_what_was_measured() -> None:
    curve = fitted({(16.0, 32.0): 1.0, (32.0, 64.0): 2.0})
    assert curve.covers((16.0, 64.0))
    assert not curve.covers((8.0, 64.0))
    assert not curve.covers((32.0, 96.0))


@given(st.floats(0.1, 5), st.floats(0.1, 5))
def test_a_line_is_found_again(fixed: float, slope: float) -> None:
    found = fit_line([(x, fixed + slope * x) for x in WIDTHS], resolution=1e-9)
    np.testing.assert_allclose(found, (fixed, slope), rtol=1e-4)
