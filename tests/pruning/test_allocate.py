"""The allocator: within the budget, least score lost, over plateaus, and honest about what cannot be reached."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import TargetError
from edgeprune.latency.cost import MacsCost, total
from edgeprune.pruning.allocate import allocate, allowed_widths, minimal_widths
from edgeprune.structure.operations import OpSignature
from edgeprune.structure.units import Layer, Structure, UnitGroup, Width


def group(name: str, size: int, multiple: int = 1) -> UnitGroup:
    return UnitGroup(id=name, size=size, produced=(), consumed=(), multiple=multiple)


def chain(widths: Mapping[str, int], pixels: int = 8) -> Structure:
    """A chain of 1x1 convolutions: 3 channels in, one group between any two, 10 out."""
    sides = [Width(3), *(Width(0, ((name, 1),)) for name in widths), Width(10)]
    layers = []
    for number, (left, right) in enumerate(itertools.pairwise(sides)):
        operation = OpSignature("conv2d", left.at(widths), right.at(widths), height=pixels, width=pixels)
        layers.append(Layer(f"conv{number}", operation, left, right))
    return Structure(tuple(group(name, size) for name, size in widths.items()), tuple(layers), ())


def scores_of(structure: Structure, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {g.id: generator.exponential(size=g.size) for g in structure.groups}


@given(
    sizes=st.lists(st.integers(4, 24), min_size=1, max_size=4),
    share=st.floats(0.2, 0.95),
    granularity=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_choice_is_in_budget_lowest_scores_go_and_nothing_more_fits(
    sizes: list[int], share: float, granularity: int, seed: int
) -> None:
    structure = chain({f"g{i}": size for i, size in enumerate(sizes)})
    costs, scores = MacsCost(), scores_of(structure, seed)
    budget = share * total(structure.layers, structure.sizes, costs)
    floor = minimal_widths(structure, granularity=granularity, minimum=2)
    if total(structure.layers, floor, costs) > budget:
        with pytest.raises(TargetError, match="cannot be reached"):
            allocate(structure, scores, costs, budget, granularity=granularity, minimum=2)
        return
    choice = allocate(structure, scores, costs, budget, granularity=granularity, minimum=2)
    assert choice.cost == pytest.approx(total(structure.layers, choice.kept, costs))
    assert choice.cost <= budget
    lost = 0.0
    for g in structure.groups:
        widths = allowed_widths(g, granularity=granularity, minimum=2)
        removed = choice.removed.get(g.id, ())
        assert choice.kept[g.id] in widths
        assert choice.kept[g.id] == g.size - len(removed)
        stays = np.delete(scores[g.id], list(removed))
        assert not removed or scores[g.id][list(removed)].max() <= stays.min()
        lost += float(scores[g.id][list(removed)].sum())
        wider = [w for w in widths if w > choice.kept[g.id]]
        if wider:
            assert total(structure.layers, {**choice.kept, g.id: min(wider)}, costs) > budget
    assert choice.score_lost == pytest.approx(lost)


@pytest.mark.parametrize("seed", range(10))
def test_close_to_brute_force_on_small_problems(seed: int) -> None:
    structure = chain({"a": 6, "b": 5, "c": 6})
    costs, scores = MacsCost(), scores_of(structure, seed)
    budget = 0.5 * total(structure.layers, structure.sizes, costs)
    best = min(
        sum(float(np.sort(scores[g.id])[: g.size - w].sum()) for g, w in zip(structure.groups, widths, strict=True))
        for widths in itertools.product(*(range(1, g.size + 1) for g in structure.groups))
        if total(structure.layers, dict(zip(structure.sizes, widths, strict=True)), costs) <= budget
    )
    choice = allocate(structure, scores, costs, budget, granularity=1, minimum=1)
    assert best <= choice.score_lost + 1e-12
    assert choice.score_lost <= 1.6 * best  # greedy: near, not exact


class Staircase:
    """Kernels that work in blocks of 16 channels: nothing is saved inside a block."""

    def cost(self, operation: OpSignature) -> float:
        return -(-operation.in_channels // 16) * -(-operation.out_channels // 16)


def test_steps_over_plateaus() -> None:
    structure = chain({"a": 64})
    scores = {"a": np.arange(64.0)}
    choice = allocate(structure, scores, Staircase(), 4, granularity=4, minimum=4)
    assert choice.kept["a"] == 32  # 36 costs what 48 does: it is passed over
    assert choice.removed["a"] == tuple(range(32))


def test_grouped_convolutions_keep_their_multiple() -> None:
    assert allowed_widths(group("g", 36, multiple=12), granularity=8, minimum=8) == (36, 24)
    assert allowed_widths(group("g", 7), granularity=8, minimum=8) == (7,)
    assert allowed_widths(group("g", 20), granularity=8, minimum=8) == (20, 16, 8)
