"""Regrowth: the budget is kept in the end, what comes back was gone, and what the kept cannot express comes first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_structures import net

from edgeprune.pruning.ranking import ByScore, gone_of
from edgeprune.pruning.regrowth import regrow, regrowth_share, residuals, softmax


def test_the_share_falls_along_a_cosine_to_nothing() -> None:
    assert [regrowth_share(0.3, t) for t in (0.0, 0.5, 1.0)] == pytest.approx([0.3, 0.15, 0.0])
    assert regrowth_share(0.3, 2.0) == pytest.approx(0.0)


@given(keep=st.integers(1, 8), share=st.floats(0, 0.99), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_so_many_come_back_and_only_of_what_went(keep: int, share: float, seed: int) -> None:
    made, structure = net(seed)
    ranking = ByScore({g.id: np.random.default_rng(seed).random(g.size) for g in structure.groups})
    removed = gone_of(ranking, {g.id: min(keep, g.size) for g in structure.groups})
    left = regrow(made, structure, removed, share, np.random.default_rng(seed))
    for group in structure.groups:
        went, still = removed.get(group.id, ()), left.get(group.id, ())
        assert set(still) <= set(went)
        assert len(went) - len(still) == min(len(went), round(share * group.size))
    assert regrow(made, structure, removed, regrowth_share(share, 1.0), np.random.default_rng(seed)) == removed


@given(rows=st.integers(2, 8), length=st.integers(2, 12), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_residuals_are_distances_from_the_span(rows: int, length: int, seed: int) -> None:
    """Against the projector made of an orthonormal basis, in float64."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(rows, length))
    gone = tuple(sorted(rng.choice(rows, size=rng.integers(1, rows), replace=False).tolist()))
    basis, _ = np.linalg.qr(np.delete(weights, list(gone), axis=0).T)
    expected = np.linalg.norm(weights[list(gone)] - weights[list(gone)] @ basis @ basis.T, axis=1)
    np.testing.assert_allclose(residuals(weights, gone), expected, atol=1e-10)


def test_a_filter_that_the_kept_ones_express_comes_back_last() -> None:
    made, structure = net()
    with torch.no_grad():
        made.conv1.weight[1] = made.conv1.weight[0] * 2  # 0 stays
        made.conv1.weight[2] *= 500
        made.deep.weight[1] = made.deep.weight[0] * 2
        made.conv1.bias[:], made.deep.bias[:] = 0, 0
    back = regrow(made, structure, {"conv1:out": (1, 2)}, 1 / 8, np.random.default_rng(0))
    assert back == {"conv1:out": (1,)}


def test_chances_of_great_values_are_numbers() -> None:
    chances = softmax(np.array([1e6, 0.0, 1e6]))
    assert chances.sum() == pytest.approx(1.0)
    assert (chances > 0).all()
