"""NetAdapt: budgets are met, each step is the best proposal, and going further does not forget the way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_structures import Additive, chain, problem, scores_of

from edgeprune.errors import TargetError, TrainingDiverged
from edgeprune.latency.cost import MacsCost, total
from edgeprune.methods.netadapt import NetAdapt
from edgeprune.space.decisions import Limits
from edgeprune.space.ranking import ByScore


@given(sizes=st.lists(st.integers(4, 24), min_size=1, max_size=4), share=st.floats(0.2, 1.0), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_budget_is_met_and_the_lowest_go(sizes: list[int], share: float, seed: int) -> None:
    structure = chain({f"g{i}": size for i, size in enumerate(sizes)})
    costs, scores = MacsCost(), scores_of(structure, seed)
    full = total(structure.layers, structure.sizes, costs)
    walker = NetAdapt(problem(structure, ByScore(scores), costs, Additive(scores), Limits(2, 2)))
    if walker.smallest().cost > share * full:
        with refused(TargetError):
            walker.within(share * full)
        return
    choice = walker.within(share * full)
    assert choice.cost <= share * full
    assert choice.cost == pytest.approx(total(structure.layers, choice.subnet.kept(structure), costs))
    assert choice.subnet.dropped == ()
    for name, gone in choice.subnet.units.items():
        assert sorted(scores[name])[: len(gone)] == sorted(scores[name][list(gone)])
    wider = walker.within(max(share, 0.9) * full)
    assert wider.cost <= max(share, 0.9) * full
    assert wider.cost >= choice.cost
    assert walker.within(share * full) == choice  # whatever was asked in between


def test_a_step_is_the_proposal_that_loses_least() -> None:
    """Two equal layers, one of which nobody misses: it alone gives way."""
    structure = chain({"needed": 16, "spare": 16, "last": 4})
    scores = {name: values.copy() for name, values in scores_of(structure, 0).items()}
    scores["needed"] += 100
    scores["last"] += 100
    scores["spare"] *= 0
    full = total(structure.layers, structure.sizes, MacsCost())
    asked: list[float] = []
    judge = Additive(scores)
    walker = NetAdapt(
        problem(structure, ByScore(scores), MacsCost(), judge, Limits(1, 1), on_step=lambda cost, _: asked.append(cost))
    )
    choice = walker.within(0.6 * full)
    assert set(choice.subnet.units) == {"spare"}
    assert asked == sorted(asked, reverse=True)
    assert choice.loss == 0


def test_steps_shrink_as_published() -> None:
    """A sixteenth of the whole cost, times 0.96 at each; layers are so wide that a proposal saves hardly more."""
    structure = chain({f"g{number}": 400 for number in range(4)})
    scores, costs = scores_of(structure, 0), [1.0]
    full = total(structure.layers, structure.sizes, MacsCost())
    walker = NetAdapt(
        problem(
            structure,
            ByScore(scores),
            MacsCost(),
            Additive(scores),
            Limits(1, 1),
            on_step=lambda cost, _: costs.append(cost / full),
        )
    )
    walker.within(0.5 * full)
    saved = -np.diff(costs)
    assert len(saved) >= 8
    np.testing.assert_allclose(saved, [0.96**step / 16 for step in range(len(saved))], rtol=0.05)


def test_the_last_step_goes_no_further_than_it_must() -> None:
    """At a finer granularity it gets nearer, and the way is walked once."""
    structure = chain({"a": 64, "b": 64, "c": 64})
    scores = scores_of(structure, 1)
    full, judge = total(structure.layers, structure.sizes, MacsCost()), Additive(scores)
    walker = NetAdapt(problem(structure, ByScore(scores), MacsCost(), judge, Limits(16, 16)))
    small = walker.within(0.4 * full)
    asked = judge.asked
    for share in (0.93, 0.8, 0.6):
        coarse, fine = walker.within(share * full), walker.within(share * full, granularity=1)
        assert coarse.cost <= fine.cost <= share * full
        assert fine.cost >= (share - 0.01) * full
    seen = judge.asked
    assert walker.within(0.4 * full) == small
    assert judge.asked == seen > asked


def test_a_proposal_that_answers_no_numbers_is_the_last_to_be_taken() -> None:
    structure = chain({"broken": 16, "fine": 16})
    scores = scores_of(structure, 0)
    judge = Additive(scores)
    walker = NetAdapt(
        problem(
            structure,
            ByScore(scores),
            MacsCost(),
            lambda subnet: math.nan if "broken" in subnet.units else judge(subnet),
            Limits(4, 4),
        )
    )
    choice = walker.within(0.6 * total(structure.layers, structure.sizes, MacsCost()))
    assert set(choice.subnet.units) == {"fine"}


def test_short_trainings_that_all_diverge_are_told() -> None:
    structure = chain({"a": 16, "b": 16})
    full = total(structure.layers, structure.sizes, MacsCost())
    walker = NetAdapt(
        problem(structure, ByScore(scores_of(structure, 0)), MacsCost(), lambda _: math.nan, Limits(1, 1))
    )
    with refused(TrainingDiverged, "loss"):
        walker.within(0.5 * full)
