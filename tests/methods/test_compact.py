"""Widths by a rule, and the knapsack: the rule's widths, the budget met with the least share, and what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_structures import chain, problem, scores_of

from edgeprune.errors import RecipeError, TargetError
from edgeprune.latency.cost import MacsCost, total
from edgeprune.methods.compact import GlobalThreshold, Uniform
from edgeprune.methods.halp import SummedScores
from edgeprune.recipe_file import parse_recipe
from edgeprune.search.additive import AdditiveAllocator
from edgeprune.search.rules import Rule, RuleAllocator
from edgeprune.space.decisions import Limits, allowed_widths
from edgeprune.space.ranking import ByScore

SIZES = st.lists(st.integers(4, 24), min_size=1, max_size=4)


def no_loss(*_: object) -> float:
    return 0.0


@given(sizes=SIZES, share=st.floats(0.3, 0.999), name=st.sampled_from(["uniform", "global"]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_budget_is_met_and_no_lesser_share_meets_it(sizes: list[int], share: float, name: str, seed: int) -> None:
    structure = chain({f"g{i}": size for i, size in enumerate(sizes)})
    scores, costs = scores_of(structure, seed), MacsCost()
    rule: Rule = Uniform(structure.sizes) if name == "uniform" else GlobalThreshold(scores)
    budget = share * total(structure.layers, structure.sizes, costs)
    allocator = RuleAllocator(problem(structure, ByScore(scores), costs, no_loss, Limits(2, 2)), rule)
    if allocator.smallest().cost > budget:
        with refused(TargetError):
            allocator.within(budget)
        return
    choice = allocator.within(budget)
    assert choice.cost == pytest.approx(total(structure.layers, choice.subnet.kept(structure), costs))
    assert choice.cost <= budget
    for lesser in np.linspace(0.0, 1.0, 1025)[1:]:
        wanted = rule.kept(lesser)
        kept = {
            g.id: min(w for w in allowed_widths(g, Limits(2, 2)) if w >= min(wanted[g.id], g.size))
            for g in structure.groups
        }
        if kept == choice.subnet.kept(structure):
            break
        assert total(structure.layers, kept, costs) > budget


def test_the_global_threshold_is_one_for_all_groups() -> None:
    scores = {"a": np.array([0.1, 0.2, 0.9, 0.8]), "b": np.array([0.3, 0.4])}
    rule = GlobalThreshold(scores)
    assert rule.kept(0.5) == {"a": 2, "b": 1}  # 0.1, 0.2 and 0.3 of six go
    assert rule.kept(1.0) == {"a": 0, "b": 0}
    assert Uniform({"a": 4, "b": 2}).kept(0.5) == {"a": 2, "b": 1}


@given(sizes=st.lists(st.integers(2, 6), min_size=1, max_size=3), share=st.floats(0.4, 0.95), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_knapsack_keeps_the_greatest_score(sizes: list[int], share: float, seed: int) -> None:
    """Against every choice there is."""
    structure = chain({f"g{i}": size for i, size in enumerate(sizes)})
    scores, costs = scores_of(structure, seed), MacsCost()
    budget = share * total(structure.layers, structure.sizes, costs)
    allocator = AdditiveAllocator(
        problem(structure, ByScore(scores), costs, no_loss, Limits(1, 1)), value=SummedScores(scores)
    )
    best = math.inf
    for widths in itertools.product(*(range(1, size + 1) for size in sizes)):
        kept = dict(zip(structure.sizes, widths, strict=True))
        if total(structure.layers, kept, costs) <= budget:
            lost = sum(np.sort(scores[name])[: structure.sizes[name] - w].sum() for name, w in kept.items())
            best = min(best, float(lost))
    if math.isinf(best):
        with pytest.raises(TargetError):
            allocator.within(budget)
        return
    choice = allocator.within(budget)
    assert choice.cost <= budget
    assert SummedScores(scores)(choice.subnet) == pytest.approx(best, abs=1e-9)
    assert choice.loss == 0.0  # the judge's, not the scores'


@pytest.mark.parametrize("allocator", ["global", "knapsack"])
def test_a_method_without_scores_is_refused_where_scores_are_compared(allocator: str) -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}}
    with refused(RecipeError, "`reprune`", f"`{allocator}`"):
        parse_recipe({**tree, "prune": {"method": "reprune", "allocator": allocator}})
