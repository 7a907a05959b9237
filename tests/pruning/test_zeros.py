"""How many zeros a target takes: counted exactly, and between two measured files."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import edgeprune
from edgeprune.errors import TargetError, UsageError
from edgeprune.latency.measurement import Ratio
from edgeprune.pruning.unstructured import macs_of_weights
from edgeprune.pruning.zeros import ZerosAttempt, between, counted_zeros, masks_of
from edgeprune.recipe import SparseSection


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
@given(st.floats(0.02, 0.95), st.sampled_from([1, 2, 4]), st.sampled_from(["global", "uniform"]))
def test_a_counted_target_is_met_to_one_block(share: float, block: int, scope: Any) -> None:
    """The multiply-accumulates that are left are the target's, but for less than a block of each layer."""
    made = model()
    wanted = WHOLE - share * (FIRST + SECOND)
    sparse = SparseSection(target=f"{wanted / 1e6!r}MMACs", block=block, scope=scope)
    found = counted_zeros(made, sparse, WHOLE)
    assert (found.of, found.within_tolerance, found.best) == ("macs", True, None)
    costs = macs_of_weights(made.module, made.example_input())
    masks = masks_of(made, sparse, found.zeros)
    left = WHOLE - sum(costs[name] * float((~mask).sum()) for name, mask in masks.items())
    assert -1 <= left - wanted <= block * sum(costs.values())


def test_what_zeros_cannot_reach_or_need_not_is_refused() -> None:
    made = model()
    with pytest.raises(TargetError, match="without any zero"):
        counted_zeros(made, SparseSection(target="100MMACs"), WHOLE)
    with pytest.raises(TargetError, match="cannot be reached by zeros") as raised:
        counted_zeros(made, SparseSection(target=f"{(STEM + DENSE) / 1e6}MMACs"), WHOLE)
    assert f"{FIRST + SECOND:.5g} of them" in raised.value.what
    with pytest.raises(UsageError, match="without weights"):
        counted_zeros(made, SparseSection(target=f"{(STEM + DENSE + 100) / 1e6}MMACs"), WHOLE)
    dense = made.with_module(nn.Sequential(nn.Conv2d(3, 16, 3)))
    with pytest.raises(TargetError, match="cannot be reached by zeros"):
        counted_zeros(dense, SparseSection(target="0.01MMACs"), WHOLE)


def attempt(zeros: float, reached: float) -> ZerosAttempt:
    ratio = Ratio.model_construct(ratio=reached, low=reached, high=reached, quality="stable", evidence="")
    return ZerosAttempt.model_construct(zeros=zeros, ratio=ratio, reached=reached)


@given(st.floats(0.3, 0.9), st.floats(0.1, 2.0), st.floats(0.05, 0.95))
def test_on_a_straight_line_the_next_share_is_the_answer(fixed: float, slope: float, place: float) -> None:
    def line(zeros: float) -> float:
        return fixed + slope * (1 - zeros)

    wanted = 0.7 + place * 0.27
    share = between([attempt(0.97, line(0.97)), attempt(0.7, line(0.7))], line(wanted))
    assert share == pytest.approx(wanted)


def test_between_takes_the_nearest_on_each_side() -> None:
    tried = [attempt(0.97, 0.2), attempt(0.7, 0.8), attempt(0.9, 0.4), attempt(0.8, 0.6)]
    assert between(tried, 0.5) == pytest.approx(0.85)
    assert between(tried, 0.1) is None  # the most are too slow
    assert between(tried, 0.9) is None  # the fewest are fast enough
    assert between([attempt(0.9, 0.4), attempt(0.9005, 0.6)], 0.5) is None  # nothing lies between
