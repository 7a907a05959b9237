"""Regrowth: the budget is kept in the end, what comes back was gone, and what the kept cannot express comes first."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_structures import net, problem

from edgeprune.latency.cost import MacsCost, total
from edgeprune.methods.chex import filters, regrow, regrowth_share, residuals, softmax
from edgeprune.methods.compact import Uniform
from edgeprune.search.rules import RuleAllocator
from edgeprune.space.cut import remove_units
from edgeprune.space.decisions import Limits
from edgeprune.space.find import find_structure
from edgeprune.space.ranking import ByScore, gone_of
from edgeprune.space.units import Structure


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


@functools.cache
def grouped() -> tuple[nn.Module, Structure]:
    made = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3, groups=2), nn.ReLU(), nn.Conv2d(24, 8, 1), nn.ReLU()),
        *(nn.Conv2d(8, 4, 1), nn.Flatten()),
    )
    return made, find_structure(made, torch.randn(2, 3, 8, 8))


@given(goal=st.floats(0.3, 0.9), first=st.floats(0.0, 0.9), turns=st.integers(1, 5), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_budget_is_passed_by_what_comes_back_alone_and_kept_in_the_end(
    goal: float, first: float, turns: int, seed: int
) -> None:
    made, structure = grouped()
    torch.manual_seed(seed)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    costs = MacsCost()
    full = total(structure.layers, structure.sizes, costs)
    ranking = ByScore({g.id: np.random.default_rng(seed).random(g.size) for g in structure.groups})
    allocator = RuleAllocator(
        problem(structure, ranking, costs, lambda *_: 0.0, Limits(1, 1)), Uniform(structure.sizes)
    )
    budget = max(goal * full, allocator.smallest().cost)
    choice = allocator.within(budget)
    for turn in range(turns + 1):
        share = regrowth_share(first, turn / turns)
        left = regrow(made, structure, choice.subnet.units, share, np.random.default_rng(turn))
        kept = {g.id: g.size - len(left.get(g.id, ())) for g in structure.groups}
        for group in structure.groups:
            assert kept[group.id] <= choice.subnet.kept(structure)[group.id] + share * group.size + 0.5
        remove_units(made, structure, left)(torch.randn(1, 3, 8, 8))  # what stays can be cut out, and runs
    assert total(structure.layers, kept, costs) == choice.cost <= budget


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


def test_units_come_back_as_often_as_the_softmax_says() -> None:
    """One of three, drawn 3000 times: within four standard errors of its chance."""
    made, structure = net(3)
    gone = (1, 4, 6)
    with torch.no_grad():
        for number, unit in enumerate(gone):
            made.conv1.weight[unit] *= 1 + number
    (group,) = (group for group in structure.groups if group.id == "conv1:out")
    chances = scipy.special.softmax(residuals(filters(made, group), gone))
    assert chances.max() < 0.95
    draws = 3000
    left = [regrow(made, structure, {group.id: gone}, 1 / 8, np.random.default_rng(n))[group.id] for n in range(draws)]
    for unit, chance in zip(gone, chances, strict=True):
        share = sum(unit not in still for still in left) / draws
        assert abs(share - chance) <= 4 * math.sqrt(chance * (1 - chance) / draws)


def test_chances_of_great_values_are_numbers() -> None:
    chances = softmax(np.array([1e6, 0.0, 1e6]))
    assert chances.sum() == pytest.approx(1.0)
    assert (chances > 0).all()
