"""NetAdapt: budgets are met, each step is the best proposal, and going further does not forget the way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_structures import Additive, chain, scores_of

from edgeprune.errors import TargetError
from edgeprune.latency.cost import MacsCost, total
from edgeprune.pruning.allocate import Limits
from edgeprune.pruning.netadapt import NetAdapt
from edgeprune.pruning.ranking import ByScore


@given(sizes=st.lists(st.integers(4, 24), min_size=1, max_size=4), share=st.floats(0.2, 1.0), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_budget_is_met_and_the_lowest_go(sizes: list[int], share: float, seed: int) -> None:
    structure = chain({f"g{i}": size for i, size in enumerate(sizes)})
    costs, scores = MacsCost(), scores_of(structure, seed)
    full = total(structure.layers, structure.sizes, costs)
    walker = NetAdapt(structure, ByScore(scores), costs, Additive(scores), Limits(2, 2))
    if walker.smallest().cost > share * full:
        with pytest.raises(TargetError, match="cannot be reached"):
            walker.within(share * full)
        return
    choice = walker.within(share * full)
    assert choice.cost <= share * full
    assert choice.cost == pytest.approx(total(structure.layers, choice.kept, costs))
    assert choice.branches == ()
    for name, gone in choice.removed.items():
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
    walker = NetAdapt(structure, ByScore(scores), MacsCost(), Additive(scores), Limits(1, 1), on_step=asked.append)
    choice = walker.within(0.6 * full)
    assert set(choice.removed) == {"spare"}
    assert asked == sorted(asked, reverse=True)
    assert choice.loss == 0
