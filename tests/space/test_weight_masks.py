from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from edgeprune.errors import ModelError, UsageError
from edgeprune.space.weight_masks import (
    Which,
    apply_masks,
    least_weights,
    macs_of_weights,
    magnitude_masks,
    zeros_by_layer,
)

IMAGE = torch.zeros(1, 3, 8, 8)


def net(seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.Conv2d(8, 10, 1, bias=False),
        nn.Conv2d(10, 10, 3, 1, 1, groups=10),
        nn.Conv2d(10, 6, 1),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    )
    made[3].weight.data *= scale
    return made


def gone(masks: Mapping[str, Tensor]) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())


@settings(max_examples=60, deadline=None)
@given(zeros=st.floats(0.001, 0.95), seed=st.integers(0, 50), scale=st.sampled_from([0.01, 1.0, 100.0]))
def test_global_is_one_threshold_that_meets_the_share_to_one_weight(zeros: float, seed: int, scale: float) -> None:
    """Against a plain sort of all weights, the largest of each layer left out."""
    module = net(seed, scale)
    masks = magnitude_masks(module, IMAGE, zeros=zeros)
    weights = {name: dict(module.named_parameters())[name].detach().abs().double() for name in masks}
    total = sum(w.numel() for w in weights.values())
    assert gone(masks) == int(zeros * total * (1 + 1e-12))
    free = torch.cat([w.reshape(-1).sort().values[:-1] for w in weights.values()])
    threshold = free.sort().values[gone(masks) - 1] if gone(masks) else -1.0
    for name, mask in masks.items():
        outside = weights[name] > threshold
        outside.view(-1)[weights[name].argmax()] = True
        assert torch.equal(mask, outside)


@settings(max_examples=40, deadline=None)
@given(zeros=st.floats(0.05, 0.95), seed=st.integers(0, 50), scale=st.sampled_from([0.01, 1.0, 100.0]))
def test_uniform_takes_the_same_share_of_every_layer(zeros: float, seed: int, scale: float) -> None:
    masks = magnitude_masks(net(seed, scale), IMAGE, zeros=zeros, scope="uniform")
    assert set(masks) == {"1.weight", "3.weight"}
    for mask in masks.values():
        assert gone({"": mask}) == int(zeros * mask.numel() * (1 + 1e-12))


@given(zeros=st.floats(0.05, 0.9), block=st.sampled_from([2, 3, 4]))
@settings(max_examples=40, deadline=None)
def test_blocks_go_together(zeros: float, block: int) -> None:
    module = net()
    masks = magnitude_masks(module, IMAGE, zeros=zeros, block=block)
    for mask in masks.values():
        for rows in mask.split(block):
            assert (rows == rows[:1]).all()
        assert mask.any()
    weights = sum(mask.numel() for mask in masks.values())
    assert zeros * weights - block < gone(masks) <= zeros * weights + 1e-6


def test_a_smaller_last_block_is_judged_by_its_mean() -> None:
    """Three weights of 1.1 lose less together than four of 1, and each of them more."""
    weight = torch.tensor([1.0] * 4 + [1.1] * 3).reshape(7, 1)
    (mask,) = least_weights({"w": weight}, zeros=0.6, block=4).values()
    assert mask.flatten().tolist() == [False] * 4 + [True] * 3


def test_a_target_in_macs_counts_what_a_weight_costs() -> None:
    module = net(scale=0.9)
    costs = macs_of_weights(module, IMAGE, "all")
    assert costs == {"0.weight": 16.0, "1.weight": 16.0, "2.weight": 16.0, "3.weight": 16.0, "5.weight": 1.0}
    masks = magnitude_masks(module, IMAGE, zeros=0.5, which="all", costs=costs)
    spent = sum(costs[name] * gone({name: mask}) for name, mask in masks.items())
    whole = sum(costs[name] * mask.numel() for name, mask in masks.items())
    assert 0.5 * whole - 16 < spent <= 0.5 * whole


def test_no_layer_falls_silent() -> None:
    masks = magnitude_masks(net(scale=1e-6), IMAGE, zeros=0.45)
    assert gone({"": masks["3.weight"]}) == masks["3.weight"].numel() - 1


def test_masks_are_applied_and_counted() -> None:
    module = net()
    before = copy.deepcopy(module)
    masks = magnitude_masks(module, IMAGE, zeros=0.75)
    apply_masks(module, masks)
    zeros, weights = (sum(counts) for counts in zip(*zeros_by_layer(module, IMAGE).values(), strict=True))
    assert (zeros, weights) == (gone(masks), 8 * 10 + 10 * 6)
    for (name, old), new in zip(before.named_parameters(), module.parameters(), strict=True):
        mask = masks.get(name, torch.ones_like(old, dtype=torch.bool))
        assert torch.equal(new, torch.where(mask, old, torch.zeros(())))


def test_no_zeros_are_no_masks() -> None:
    assert magnitude_masks(net(), IMAGE, zeros=0) == {}


@pytest.mark.parametrize("zeros", [1.0, -0.1, float("nan")])
def test_impossible_shares_are_refused(zeros: float) -> None:
    with refused(UsageError, 0, 1):
        magnitude_masks(net(), IMAGE, zeros=zeros)


def test_a_share_that_silences_a_layer_is_refused() -> None:
    with refused(UsageError, "weights"):
        magnitude_masks(net(), IMAGE, zeros=0.999)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    module = net()
    module[3].weight.data[0, 0] = value
    with pytest.raises(ModelError, match=r"3\.weight"):
        magnitude_masks(module, IMAGE, zeros=0.5)


def test_a_net_without_1x1_convolutions_is_refused() -> None:
    with refused(UsageError, "1x1"):
        magnitude_masks(nn.Conv2d(3, 4, 3), IMAGE, zeros=0.5)


class Own(nn.Module):
    """A convolution of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight)


@pytest.mark.parametrize("which", ["1x1", "all", ["0.weight", "1.weight"]], ids=str)
def test_what_is_pruned_is_told_by_what_runs(which: Which) -> None:
    net = nn.Sequential(Own(), parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 3))
    masks = magnitude_masks(net, IMAGE, zeros=0.5, scope="uniform", which=which)
    assert set(masks) == ({"0.weight", "2.weight"} if which == "all" else {"0.weight"})


def test_weights_that_are_computed_anew_are_refused_alone() -> None:
    with refused(UsageError, "1x1", "weight"):
        magnitude_masks(parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), IMAGE, zeros=0.5)


def test_a_mask_of_another_net_is_refused() -> None:
    with pytest.raises(ModelError, match=r"9\.weight"):
        apply_masks(net(), {"9.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(ModelError, match=r"1\.weight"):
        apply_masks(net(), {"1.weight": torch.ones(2, dtype=torch.bool)})
