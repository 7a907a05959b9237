"""Parity figures: properties that hold for any arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from facts import refused
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeprune.errors import DataError
from edgeprune.verify.parity import sqnr_db, top1_accuracy, top1_agreement

SHAPE = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)
ARRAYS = hnp.arrays(np.float64, SHAPE, elements=st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-3))


@given(ARRAYS)
def test_equal_arrays_have_no_noise(values: np.ndarray) -> None:
    assert sqnr_db(values, values.copy()) == math.inf


@given(ARRAYS, st.floats(-120, 60))
def test_sqnr_is_the_level_of_the_added_noise(values: np.ndarray, level: float) -> None:
    """Adding a share of the signal itself gives exactly that level."""
    if not values.any():
        return
    share = 10 ** (level / 20)
    assert sqnr_db(values, values * (1 + share)) == pytest.approx(-level, abs=1e-3)


@given(ARRAYS, st.integers(-200, 200))
def test_sqnr_does_not_depend_on_the_scale(values: np.ndarray, power: int) -> None:
    noisy = values + 1.0
    if not values.any():
        return
    assert sqnr_db(values * 2.0**power, noisy * 2.0**power) == pytest.approx(sqnr_db(values, noisy), abs=1e-6)


def test_sqnr_by_hand() -> None:
    assert sqnr_db(np.array([3.0, 4.0]), np.array([3.0, 3.5])) == pytest.approx(10 * math.log10(25 / 0.25))
    assert sqnr_db(np.zeros(3), np.array([0.0, 1.0, 0.0])) == -math.inf
    assert sqnr_db(np.zeros(3), np.zeros(3)) == math.inf


def test_sqnr_counts_in_float64() -> None:
    """In float32 the difference of one part in 2^24 of 2^26 elements would drown in the sum."""
    reference = np.full(1000, 1.0, np.float32)
    output = reference.copy()
    output[0] = np.nextafter(np.float32(1.0), np.float32(2.0))
    assert sqnr_db(reference, output) == pytest.approx(10 * math.log10(1000 / 2.0**-46), abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_an_error(bad: float) -> None:
    good = np.ones((2, 2))
    broken = good.copy()
    broken[1, 0] = bad
    with refused(DataError, "NaN"):
        sqnr_db(good, broken)
    with refused(DataError, "NaN"):
        sqnr_db(broken, good)


def test_shapes_must_fit() -> None:
    with pytest.raises(DataError, match="shape"):
        sqnr_db(np.ones((2, 3)), np.ones((2, 1)))  # numpy would broadcast
    with pytest.raises(DataError, match="empty"):
        sqnr_db(np.ones(0), np.ones(0))
    with pytest.raises(DataError, match="labels"):
        top1_accuracy(np.ones((3, 2)), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="shape"):
        top1_agreement(np.ones((3, 2)), np.ones((3, 4)))
    with refused(DataError, "images", "classes"):
        top1_accuracy(np.ones(3), np.zeros(3, np.int64))


@given(ARRAYS, st.integers(0, 2**32 - 1))
def test_agreement_is_a_symmetric_share(logits: np.ndarray, seed: int) -> None:
    other = np.random.default_rng(seed).standard_normal(logits.shape)
    share = top1_agreement(logits, other)
    assert share == top1_agreement(other, logits)
    assert 0 <= share <= 1
    assert share * len(logits) == pytest.approx(round(share * len(logits)))
    assert top1_agreement(logits, logits * 3 + 1) == 1.0


@given(ARRAYS)
def test_accuracy_against_its_own_classes_is_full(logits: np.ndarray) -> None:
    labels = logits.argmax(axis=1)
    assert top1_accuracy(logits, labels) == 1.0
    assert top1_accuracy(logits, labels + 1) == 0.0


def test_nan_logits_are_an_error_rather_than_a_class() -> None:
    with pytest.raises(DataError, match="NaN"):
        top1_accuracy(np.array([[0.0, np.nan]]), np.array([1]))
