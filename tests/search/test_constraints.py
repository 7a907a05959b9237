"""What binds is told alike by both allocators: least widths, what is held, what cannot be cut, what is reachable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_milp import residual
from torch import nn
from toy_structures import Additive, chain, problem, scores_of

from edgeprune.latency.cost import MacsCost, total
from edgeprune.search.additive import AdditiveAllocator
from edgeprune.search.constraints import Binding, binding
from edgeprune.search.path import PathAllocator
from edgeprune.search.problem import Shares
from edgeprune.space.decisions import Limits
from edgeprune.space.find import find_structure
from edgeprune.space.keep import hold
from edgeprune.space.ranking import ByScore
from edgeprune.space.units import Structure

BOTH = pytest.mark.parametrize("kind", [PathAllocator, AdditiveAllocator])


def bound(
    kind: type[PathAllocator] | type[AdditiveAllocator],
    structure: Structure,
    limits: Limits,
    share: float,
    seed: int = 0,
) -> Binding:
    ranks = scores_of(structure, seed)
    judge = Additive(ranks, {branch.id: 50.0 for branch in structure.branches})
    whole = total(structure.layers, structure.sizes, MacsCost())
    allocator = kind(problem(structure, ByScore(ranks), MacsCost(), judge, limits))
    return binding(allocator, allocator.within(share * whole), Shares(whole, 0.5))


@BOTH
def test_groups_at_their_least_width_are_named(kind: type[PathAllocator] | type[AdditiveAllocator]) -> None:
    structure = chain({"g0": 16, "g1": 16, "g2": 4})  # the last one cannot get narrower than 4
    fastest = (3 * 4 + 4 * 4 + 4 * 4 + 4 * 10) / (3 * 16 + 16 * 16 + 16 * 4 + 4 * 10)
    found = bound(kind, structure, Limits(4, 4), fastest * 1.001)
    assert found.fastest_share == pytest.approx(fastest)
    assert found.at_least == ("g0", "g1")
    assert found.groups == 2
    assert "every group stands at its least width" in found.words
    assert f"the least reachable is {fastest:.3f}x" in found.words
    free = bound(kind, structure, Limits(4, 4), 0.9)
    assert free.fastest_share == found.fastest_share
    assert free.at_least == ()
    assert "only the target binds" in free.words


@BOTH
def test_some_at_their_least_width(kind: type[PathAllocator] | type[AdditiveAllocator]) -> None:
    structure = chain({"g0": 16, "g1": 16})
    ranks = {"g0": np.full(16, 1e-6), "g1": np.full(16, 1e3)}  # all of the first goes before any of the second
    whole = total(structure.layers, structure.sizes, MacsCost())
    allocator = kind(problem(structure, ByScore(ranks), MacsCost(), Additive(ranks), Limits(4, 4)))
    found = binding(allocator, allocator.within(0.6 * whole), Shares(whole, 0.5))
    assert found.at_least == ("g0",)
    assert "at their least width: g0;" in found.words


@BOTH
def test_what_nothing_cuts_is_a_share_of_the_cost(kind: type[PathAllocator] | type[AdditiveAllocator]) -> None:
    structure = residual(2, 16, 8)
    whole = total(structure.layers, structure.sizes, MacsCost())
    stem = structure.layers[0].operation.macs
    with_branches = bound(kind, structure, Limits(4, 16), 1.0)
    assert with_branches.uncut_share == pytest.approx(stem / whole)  # the branches may go whole
    assert with_branches.words.count("no group can get narrower") == 1
    assert bound(kind, structure, Limits(4, 16, branches=False), 1.0).uncut_share == pytest.approx(1.0)
    assert bound(kind, structure, Limits(4, 4), 0.8).uncut_share == 0.0


@BOTH
def test_what_was_held_is_named(kind: type[PathAllocator] | type[AdditiveAllocator]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3)).eval()
    held = bound(kind, hold(find_structure(module, torch.randn(1, 3, 12, 12)), ["0"]), Limits(4, 4), 0.9)
    assert len(held.asked) == 1
    assert f"held by prune.keep: {held.asked[0]}" in held.words
    assert held.uncut_share > 0  # the first layer reads the image and writes what is held
    free = bound(kind, find_structure(module, torch.randn(1, 3, 12, 12)), Limits(4, 4), 0.9)
    assert free.asked == ()
    assert "prune.keep" not in free.words
