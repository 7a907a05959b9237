"""Exact allocation equals brute force, always."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from facts import refused
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toy_structures import chain, group

from edgeprune.errors import TargetError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.cost import MacsCost, total
from edgeprune.search import milp as exact
from edgeprune.search.milp import Losses, Program
from edgeprune.space.units import Branch, Layer, Structure, Width


class Steps:
    """Any cost whatever for each operation: kernels step, and wider is not always dearer."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def cost(self, operation: OpSignature) -> float:
        numbers = (operation.in_channels, operation.out_channels, operation.height, self._seed)
        return 1e-5 * float(np.random.default_rng(numbers).uniform(0.1, 1.0)) * operation.in_channels


def residual(blocks: int, stream: int, inner: int) -> Structure:
    """Blocks of two convolutions on a stream; each block's branch may go."""
    sizes = {"stream": stream, **{f"inner{n}": inner + n for n in range(blocks)}}
    layers = [Layer("stem", OpSignature("conv2d", 3, stream, 8, 8), Width(3), Width(0, ((("stream",), 1),)))]
    branches = []
    for n in range(blocks):
        wide, narrow = Width(0, ((("stream",), 1),)), Width(0, (((f"inner{n}",), 1),))
        layers.append(Layer(f"a{n}", OpSignature("conv2d", stream, inner + n, 8, 8), wide, narrow))
        layers.append(Layer(f"b{n}", OpSignature("conv2d", inner + n, stream, 4 + n, 8), narrow, wide))
        branches.append(Branch(f"block{n}", f"b{n}", (f"a{n}",), (f"a{n}", f"b{n}"), (f"inner{n}",)))
    groups = tuple(group(name, size) for name, size in sizes.items())
    return Structure(groups, tuple(layers), (), tuple(branches))


def losses_of(structure: Structure, widths: Mapping[str, list[int]], seed: int) -> Losses:
    """Whole groups lose nothing; what is narrower loses more."""
    random = np.random.default_rng(seed)
    groups = {}
    for one in structure.groups:
        ordered = sorted({one.size, *widths[one.id]}, reverse=True)
        falls = np.concatenate([[0.0], np.cumsum(random.exponential(size=len(ordered) - 1))])
        groups[one.id] = dict(zip(ordered, falls.tolist(), strict=True))
    return {**groups, **{b.id: {1: 0.0, 0: float(random.exponential())} for b in structure.branches}}


def brute_force(structure: Structure, losses: Losses, costs: object, budget: float) -> float | None:
    best = None
    names = [one.id for one in structure.groups]
    for widths in itertools.product(*(losses[name].items() for name in names)):
        kept = {name: width for name, (width, _) in zip(names, widths, strict=True)}
        for gone in itertools.product((False, True), repeat=len(structure.branches)):
            dropped = [branch for branch, out in zip(structure.branches, gone, strict=True) if out]
            if any(kept[name] != structure.sizes[name] for branch in dropped for name in branch.groups):
                continue
            left = [layer for layer in structure.layers if not any(layer.name in b.layers for b in dropped)]
            if total(left, kept, costs) > budget:  # type: ignore[arg-type]
                continue
            loss = sum(loss for _, loss in widths) + sum(losses[branch.id][0] for branch in dropped)
            best = loss if best is None else min(best, loss)
    return best


@given(
    blocks=st.integers(0, 2),
    stream=st.integers(2, 5),
    seed=st.integers(0, 10_000),
    share=st.floats(0.05, 1.1),
    counted=st.booleans(),
)
@example(blocks=1, stream=2, seed=2, share=1.0, counted=False)  # summed in another order it exceeded its own cost
@settings(max_examples=80, deadline=None)
def test_the_loss_is_that_of_brute_force(blocks: int, stream: int, seed: int, share: float, counted: bool) -> None:
    structure = residual(blocks, stream, 3)
    random = np.random.default_rng(seed)
    widths = {g.id: random.integers(1, g.size + 1, random.integers(0, 4)).tolist() for g in structure.groups}
    losses, costs = losses_of(structure, widths, seed), MacsCost() if counted else Steps(seed)
    budget = share * total(structure.layers, structure.sizes, costs)
    expected = brute_force(structure, losses, costs, budget)
    problem = Program(structure, losses, costs)
    if expected is None:
        with refused(TargetError):
            problem.best(budget)
        assert problem.cheapest().cost > budget
        return
    found = problem.best(budget)
    assert found.loss == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found.cost <= budget
    left = [
        layer
        for layer in structure.layers
        if not any(layer.name in b.layers for b in structure.branches if found.point.get(b.id) == 0)
    ]
    assert found.cost == pytest.approx(total(left, found.point, costs))


@given(blocks=st.integers(0, 2), stream=st.integers(2, 4), seed=st.integers(0, 10_000), counted=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_budget_that_a_choice_costs_exactly(blocks: int, stream: int, seed: int, counted: bool) -> None:
    structure = residual(blocks, stream, 3)
    random = np.random.default_rng(seed)
    choice = {one.id: int(random.integers(1, one.size + 1)) for one in structure.groups}
    losses = losses_of(structure, {name: [width] for name, width in choice.items()}, seed)
    costs = MacsCost() if counted else Steps(seed)
    budget = total(structure.layers, choice, costs)
    found = Program(structure, losses, costs).best(budget)
    assert found.loss == pytest.approx(brute_force(structure, losses, costs, budget), rel=1e-6, abs=1e-9)
    assert found.cost <= budget


class NearTie:
    """Widths 4 and 2 cost the same but for a little."""

    def __init__(self, more: float) -> None:
        self._costs = {8: 1e-3, 4: 0.5e-3 * (1 + more), 2: 0.5e-3}

    def cost(self, operation: OpSignature) -> float:
        return self._costs.get(operation.out_channels, 1e-4)


@pytest.mark.parametrize("more", [1e-15, 1e-12, 1e-9, 1e-8, 1e-6])
def test_a_budget_that_the_cheapest_costs_where_another_hardly_costs_more(more: float) -> None:
    """The solver takes one for the other; less is allowed until nothing is left."""
    structure, costs = chain({"g0": 8}), NearTie(more)
    budget = total(structure.layers, {"g0": 2}, costs)
    found = Program(structure, {"g0": {8: 0.0, 4: 1.0, 2: 50.0}}, costs).best(budget)
    assert found.cost <= budget
    assert found.point["g0"] == 2 or more == 1e-15  # where rounding makes them one


@given(sizes=st.lists(st.integers(3, 9), min_size=1, max_size=4), seed=st.integers(0, 999), share=st.floats(0.2, 0.9))
@settings(max_examples=40, deadline=None)
def test_chains_too(sizes: list[int], seed: int, share: float) -> None:
    structure = chain({f"g{n}": size for n, size in enumerate(sizes)})
    losses = losses_of(structure, {g.id: [2, 3, g.size - 1] for g in structure.groups}, seed)
    budget = share * total(structure.layers, structure.sizes, MacsCost())
    expected = brute_force(structure, losses, MacsCost(), budget)
    if expected is not None:
        assert Program(structure, losses, MacsCost()).best(budget).loss == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_layer_that_reads_three_groups_is_priced_over_all() -> None:
    names = ("a", "b", "c")
    sides = [Width(0, (((name,), 1),)) for name in names]
    layers = [Layer(n, OpSignature("conv2d", 3, 4, 4, 4), Width(3), side) for n, side in zip(names, sides, strict=True)]
    joined = Width(0, tuple(((name,), 1) for name in names))
    layers.append(Layer("join", OpSignature("conv2d", 12, 10, 4, 4), joined, Width(10)))
    structure = Structure(tuple(group(name, 4) for name in names), tuple(layers), ())
    losses = losses_of(structure, {name: [1, 2, 3] for name in names}, 5)
    for share in (0.4, 0.6, 0.8):
        budget = share * total(structure.layers, structure.sizes, Steps(1))
        expected = brute_force(structure, losses, Steps(1), budget)
        assert Program(structure, losses, Steps(1)).best(budget).loss == pytest.approx(expected, rel=1e-6)


def test_the_least_budget_leaves_the_cheapest_and_the_largest_everything() -> None:
    structure = chain({"g0": 8, "g1": 8})
    losses = losses_of(structure, {"g0": [2, 4], "g1": [4]}, 0)
    problem = Program(structure, losses, MacsCost())
    everything = total(structure.layers, structure.sizes, MacsCost())
    assert problem.best(problem.cheapest().cost * 1.001).point == {"g0": 2, "g1": 4}
    assert problem.best(math.inf).point == structure.sizes
    assert problem.best(everything).loss == 0


def test_too_many_choices_on_one_layer_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "MOST_COMBINATIONS", 5)
    structure = chain({"g0": 8, "g1": 8})
    with refused(exact.TooManyChoices, 2, "conv1"):
        Program(structure, losses_of(structure, {"g0": [2, 4], "g1": [4, 6]}, 0), MacsCost())


def test_where_there_is_nothing_to_choose_the_model_itself_is_the_answer() -> None:
    structure = chain({"g0": 8})
    whole = total(structure.layers, structure.sizes, MacsCost())
    problem = Program(structure, {"g0": {8: 0.0}}, MacsCost())
    assert problem.best(whole).point == {"g0": 8}
    with pytest.raises(TargetError):
        problem.best(0.9 * whole)
    bare = Program(Structure((), structure.layers[:0], ()), {}, MacsCost())
    assert bare.best(1.0).point == {}
