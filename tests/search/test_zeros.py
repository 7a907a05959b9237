"""How many zeros a target takes: counted exactly, and between two measured files.

Here the device is this machine, which runs every file dense; `tests/lab/test_commands.py` searches on the ARM64 one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import edgeprune
from edgeprune.errors import TargetError, UsageError
from edgeprune.latency.bench import Bench
from edgeprune.latency.measurement import Ratio
from edgeprune.recipe import SparseSection, Target
from edgeprune.search.measured import Attempt, Goal
from edgeprune.search.zeros import (
    LEAST,
    STEP,
    Zeros,
    ZerosAttempt,
    ZerosRow,
    check_zeros_are_needed,
    counted_zeros,
    masks_of,
    zeros_for_latency,
)
from edgeprune.space.weight_masks import macs_of_weights


def model() -> edgeprune.Model:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 32, 1), nn.Conv2d(32, 32, 3, 2, 1), nn.Conv2d(32, 64, 1)
    )
    return edgeprune.load("mobilenetv2_050", num_classes=10, input_size=(3, 32, 32)).with_module(net)


STEM, DENSE = 3 * 16 * 9 * 16 * 16, 32 * 32 * 9 * 8 * 8
FIRST, SECOND = 16 * 32 * 16 * 16, 32 * 64 * 8 * 8
WHOLE = STEM + FIRST + DENSE + SECOND


@settings(max_examples=20, deadline=None)
@given(
    st.floats(0.02, 0.95),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["global", "uniform"]),
    st.sampled_from(["1x1", "all"]),
)
def test_a_counted_target_is_met_to_one_block(share: float, block: int, scope: Any, layers: Any) -> None:
    """No more multiply-accumulates are left than the target's, and less than a block of each layer fewer."""
    made = model()
    wanted = WHOLE - share * (WHOLE if layers == "all" else FIRST + SECOND)
    sparse = SparseSection(target=f"{wanted / 1e6!r}MMACs", block=block, scope=scope, layers=layers)
    found = counted_zeros(made, sparse, WHOLE)
    assert (found.of, found.within_tolerance, found.best) == ("macs", True, None)
    costs = macs_of_weights(made.module, made.example_input(), layers)
    masks = masks_of(made, sparse, found.zeros)
    left = WHOLE - sum(costs[name] * float((~mask).sum()) for name, mask in masks.items())
    assert -block * sum(costs.values()) <= left - wanted <= 1


def test_a_weight_that_two_layers_share_counts_for_both() -> None:
    made = model()
    again = nn.Conv2d(16, 32, 1)
    again.weight = made.module[1].weight  # type: ignore[index, union-attr, assignment]
    parts = nn.ModuleDict({"body": made.module, "again": again})

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = parts

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            body, x = self.parts["body"], self.parts["body"][0](x)  # type: ignore[index]
            return body[3](body[2](body[1](x) + self.parts["again"](x)))  # type: ignore[index]

    twice = made.with_module(Twice())
    costs = macs_of_weights(twice.module, twice.example_input())
    assert costs == {"parts.body.1.weight": 2 * 16 * 16, "parts.body.3.weight": 8 * 8}
    wanted = WHOLE + FIRST - 0.5 * (2 * FIRST + SECOND)
    found = counted_zeros(twice, SparseSection(target=f"{wanted / 1e6!r}MMACs"), WHOLE + FIRST)
    assert found.zeros == pytest.approx(0.5)


def test_what_zeros_cannot_reach_or_need_not_is_refused() -> None:
    made = model()
    with refused(TargetError, "100 MMACs", "sparse.target"):
        counted_zeros(made, SparseSection(target="100MMACs"), WHOLE)
    with pytest.raises(TargetError) as raised:
        counted_zeros(made, SparseSection(target=f"{(STEM + DENSE) / 1e6}MMACs"), WHOLE)
    assert f"{FIRST + SECOND:.5g} of {WHOLE:.5g}" in raised.value.what
    assert raised.value.where == "sparse.target"
    assert "sparse.layers = 'all'" in str(raised.value.hint)
    with refused(UsageError, "weights"):
        counted_zeros(made, SparseSection(target=f"{(STEM + DENSE + 100) / 1e6}MMACs"), WHOLE)
    dense = made.with_module(nn.Sequential(nn.Conv2d(3, 16, 3)))
    with refused(TargetError, "0.01 MMACs", "sparse.target"):
        counted_zeros(dense, SparseSection(target="0.01MMACs"), WHOLE)


def attempt(zeros: float, reached: float) -> ZerosAttempt:
    ratio = Ratio.model_construct(ratio=reached, low=reached, high=reached, quality="stable", evidence="")
    return ZerosAttempt.model_construct(zeros=zeros, ratio=ratio, reached=reached)


@dataclass(frozen=True)
class Seconds:
    median_s: float


SEPARABLE = Path(__file__).parents[1] / "pipeline" / "separable_net.py"


def separable(*, heavy: float = 1.0) -> edgeprune.Model:
    """A net that keeps every rule; the weights of its second 1x1 convolution times `heavy`. That has two thirds of the
    1x1 convolutions' weights and, of an image pooled between, a third of their multiply-accumulates."""
    torch.manual_seed(0)
    arguments = {"channels": 3, "width": 8}
    made = edgeprune.load(f"{SEPARABLE}:net", input_size=(3, 32, 32), arguments=arguments)
    net = made.module
    net[6].stride = (2, 2)  # type: ignore[index, assignment]
    with torch.no_grad():
        net[8].weight *= heavy  # type: ignore[index, operator]
    return made


def goal_of(made: edgeprune.Model, target: str, bench: Bench, folder: Path) -> Goal:
    """A search on this machine, for a model that is said to take a millisecond."""
    original = folder / "original.tflite"
    bench.exporter.write(made, original)
    return Goal(Target.parse(target), original, 1e-3, 0.03, 3, bench, where="sparse.target")


def test_the_fewest_zeros_are_those_of_weights_whatever_is_counted(bench: Bench, tmp_path: Path) -> None:
    """XNNPACK wants two thirds of the weights. Where those with most multiply-accumulates go first there are less of
    them than that at the same share, so more have to go."""
    made = separable(heavy=100)
    by_weights = ZerosRow(made, SparseSection(target="0.5x", block=1), bench, tmp_path)
    assert by_weights.fewest(0.97) == LEAST
    sparse = SparseSection(target="0.5x", of="macs", block=1)
    few = sum(int((~mask).sum()) for mask in masks_of(made, sparse, LEAST).values())
    assert 3 * few < 2 * sum(mask.numel() for mask in masks_of(made, sparse, LEAST).values())
    (folder := tmp_path / "macs").mkdir()
    by_macs = ZerosRow(made, sparse, bench, folder)
    share = by_macs.fewest(0.97)

    def weights_gone(share: float) -> float:
        masks = masks_of(made, sparse, share).values()
        return sum(int((~mask).sum()) for mask in masks) / sum(mask.numel() for mask in masks)

    assert weights_gone(share - STEP) <= 2 / 3 < weights_gone(share)


def test_an_interrupted_search_measures_nothing_twice(bench: Bench, tmp_path: Path) -> None:
    """All three files were measured before: this machine, which would take each for as slow as the original, is not
    asked."""
    made, sparse, kept = separable(), SparseSection(target="0.5x", block=1), list[Attempt]()
    row = ZerosRow(made, sparse, bench, tmp_path)
    known = {}
    for zeros, reached in ((0.97, 0.2), (0.7, 0.8), (0.835, 0.5)):
        one = Attempt(
            name=row.name_of(zeros),
            place=1 - zeros,
            measured=attempt(zeros, reached).ratio,
            reached=reached,
            within=False,
        )
        known[one.name] = one
    goal = goal_of(made, "0.5x", bench, tmp_path)
    found = zeros_for_latency(made, sparse, goal, tmp_path, known=known, keep=kept.append)
    assert found.zeros == pytest.approx(0.835)
    assert found.within_tolerance
    assert [one.zeros for one in found.attempts] == pytest.approx([0.97, 0.7, 0.835])
    assert kept == []


def test_what_is_measured_is_kept_at_once(bench: Bench, tmp_path: Path) -> None:
    """This machine runs the file dense, so it is refused; the measurement is kept all the same, unless it was noisy."""
    made, kept = separable(), list[Attempt]()
    goal = goal_of(made, "0.01x", bench, tmp_path)
    with pytest.raises(TargetError) as raised:
        zeros_for_latency(made, SparseSection(target="0.01x", block=1), goal, tmp_path, known={}, keep=kept.append)
    assert raised.value.where == "sparse.target"
    assert "97%" in raised.value.what
    assert len(kept) == (1 if "stable" in raised.value.what else 0)


def test_a_model_that_is_fast_enough_gets_no_zeros(bench: Bench, tmp_path: Path) -> None:
    """Unpruned, it takes 1.0x of itself (measured here), and 0.5 ms are half of the millisecond it is said to take."""
    made = separable()
    goal = goal_of(made, "0.5x", bench, tmp_path)
    check_zeros_are_needed(made, goal, None, tmp_path)
    as_said = attempt(0.0, 0.49).ratio
    with refused(TargetError, "0.490x", "0.5x"):
        check_zeros_are_needed(made, goal, as_said, tmp_path)
    goal = goal_of(made, "0.5ms", bench, tmp_path)
    seconds = Ratio.model_construct(ratio=0.9, quality="stable", numerator=Seconds(4e-4))
    with refused(TargetError, "0.400x", "0.5ms"):
        check_zeros_are_needed(made, goal, seconds, tmp_path)


def test_a_target_that_was_missed_is_told_with_what_was_reached() -> None:
    missed = Zeros(target="0.5x", zeros=0.8, of="weights", attempts=(attempt(0.8, 0.56),), within_tolerance=False)
    assert missed.words.endswith("for 0.5x: 0.560x, outside of prune.tolerance, is the nearest in prune.corrections")
    fast = missed.model_copy(update={"fewest": True})
    assert "faster than asked" in fast.words
    met = missed.model_copy(update={"within_tolerance": True})
    assert met.words == "80.0% zeros of the 1x1 convolutions' weights for 0.5x"
