"""The additive allocator: where losses add up it is never worse than the path, and it asks the judge for cuts alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_milp import residual
from toy_structures import Additive, chain, problem, scores_of

from edgeprune.errors import TargetError
from edgeprune.latency.cost import MacsCost, total
from edgeprune.search.additive import AdditiveAllocator
from edgeprune.search.path import PathAllocator
from edgeprune.space.decisions import Limits
from edgeprune.space.ranking import ByScore
from edgeprune.space.subnet import Subnet


@given(sizes=st.lists(st.integers(8, 24), min_size=1, max_size=4), share=st.floats(0.35, 0.95), seed=st.integers(0, 99))
@example(sizes=[16, 16, 16], share=0.35, seed=0)  # the best choice costs 4e-12 more than the budget
@settings(max_examples=40, deadline=None)
def test_no_path_finds_a_better_sum(sizes: list[int], share: float, seed: int) -> None:
    structure = chain({f"g{n}": size for n, size in enumerate(sizes)})
    ranks = scores_of(structure, seed)
    budget = share * total(structure.layers, structure.sizes, MacsCost())
    exact = AdditiveAllocator(problem(structure, ByScore(ranks), MacsCost(), Additive(ranks), Limits(4, 4)))
    path = PathAllocator(problem(structure, ByScore(ranks), MacsCost(), Additive(ranks), Limits(4, 4)))
    try:
        theirs = path.within(budget)
    except TargetError:
        with pytest.raises(TargetError):
            exact.within(budget)
        return
    ours = exact.within(budget)
    assert ours.cost <= budget
    assert ours.loss <= theirs.loss + 1e-9
    for name, gone in ours.subnet.units.items():
        assert len(gone) == structure.sizes[name] - ours.subnet.kept(structure)[name]
        kept = np.delete(ranks[name], list(gone))
        assert ranks[name][list(gone)].max() <= kept.min()  # the lowest go


def test_branches_go_where_that_is_cheapest_and_only_if_they_may() -> None:
    structure = residual(3, 16, 8)
    ranks = scores_of(structure, 1)
    judge = Additive(ranks, {"block0": 50.0, "block1": 0.01, "block2": 50.0})
    whole = total(structure.layers, structure.sizes, MacsCost())
    may = AdditiveAllocator(problem(structure, ByScore(ranks), MacsCost(), judge, Limits(4, 4)))
    found = may.within(0.72 * whole)
    assert found.subnet.dropped == ("block1",)
    assert found.subnet.kept(structure)["inner1"] == structure.sizes["inner1"]
    never = AdditiveAllocator(problem(structure, ByScore(ranks), MacsCost(), judge, Limits(4, 4, branches=False)))
    assert never.within(0.72 * whole).subnet.dropped == ()
    assert may.smallest().cost < never.smallest().cost


def test_further_budgets_cost_no_further_judging_of_cuts() -> None:
    structure = chain({"g0": 24, "g1": 16})
    ranks = scores_of(structure, 0)
    judge = Additive(ranks)
    allocator = AdditiveAllocator(problem(structure, ByScore(ranks), MacsCost(), judge, Limits()))
    whole = total(structure.layers, structure.sizes, MacsCost())
    allocator.within(0.8 * whole)
    asked = judge.asked
    front = [allocator.within(share * whole) for share in (0.7, 0.6, 0.5)]
    assert judge.asked == asked + 3  # the choices themselves
    assert [choice.loss for choice in front] == sorted(choice.loss for choice in front)


def test_a_cut_after_which_the_model_answers_no_numbers_is_no_choice() -> None:
    structure = residual(2, 16, 8)
    ranks = scores_of(structure, 1)
    scored = Additive(ranks, {"block0": 0.1, "block1": 0.1})

    def judge(subnet: Subnet) -> float:
        if "block0" in subnet.dropped:
            return math.inf
        return math.nan if len(subnet.units.get("inner0", ())) > 2 else scored(subnet)

    allocator = AdditiveAllocator(problem(structure, ByScore(ranks), MacsCost(), judge, Limits(4, 4)))
    found = allocator.smallest()
    assert found.subnet.dropped == ("block1",)
    assert found.subnet.kept(structure)["inner0"] == 8
    assert math.isfinite(found.loss)
