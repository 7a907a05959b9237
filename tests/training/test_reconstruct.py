"""Least-squares reconstruction: the map against its own definition, and layers that answer as the unpruned model's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_structures import net

from edgeprune.space.branches import remove_branches
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.training.reconstruct import (
    AT_ONCE,
    WIDEST,
    adapt_norms,
    images_at_once,
    linear_map,
    reconstruct,
)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5), st.integers(2, 40), st.booleans())
def test_the_map_is_the_least_of_what_it_minimises(
    seed: int, kept: int, more: int, samples: int, centred: bool
) -> None:
    """Held against ordinary least squares of the stacked system: samples, then the pull as further rows."""
    x, z = drawn(seed, samples, kept + more) + 1, drawn(seed + 1, samples, kept) - 2
    columns = torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(kept + more)[:kept]))
    found, constant = linear_map(x, z, columns, centred=centred)
    left, right = (part - part.mean(0) if centred else part for part in (x, z))
    pull = float(right.square().mean()) * kept  # of sums over the samples, not of means
    picks = torch.zeros(kept + more, kept, dtype=torch.float64)
    picks[columns, torch.arange(kept)] = 1
    rows = torch.cat([right, pull**0.5 * torch.eye(kept, dtype=torch.float64)])
    wanted = torch.linalg.lstsq(rows, torch.cat([left, pull**0.5 * picks.T])).solution.T
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        constant, x.mean(0) - found @ z.mean(0) if centred else torch.zeros(kept + more).double()
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 50), st.booleans())
def test_inputs_that_did_not_change_are_mapped_to_themselves(seed: int, kept: int, samples: int, centred: bool) -> None:
    z = drawn(seed, samples, kept)
    found, constant = linear_map(z, z, torch.arange(kept), centred=centred)
    torch.testing.assert_close(found, torch.eye(kept, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(constant, torch.zeros(kept, dtype=torch.float64), rtol=0, atol=1e-10)


@pytest.mark.parametrize("nothing", [0.0, float("nan")])
def test_inputs_that_tell_nothing_leave_the_layer_as_it_was(nothing: float) -> None:
    z = torch.full((10, 2), nothing)
    found, constant = linear_map(torch.randn(10, 3), z, torch.tensor([0, 2]), centred=False)
    assert found.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert constant.tolist() == [0, 0, 0]


class Twins(nn.Module):
    """The last four channels of the first layer are sums of the first four."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.Conv2d(8, 5, 3, padding=1, bias=False)
        self.head = nn.Linear(5, 4)
        mixing = torch.randn(4, 4)
        self.first.weight.data[4:] = torch.einsum("mn,n...->m...", mixing, self.first.weight.data[:4])
        if bias:
            self.first.bias.data[4:] = mixing @ self.first.bias.data[:4]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))


@pytest.mark.parametrize("bias", [False, True])
def test_channels_that_others_can_stand_for_are_not_missed(bias: bool) -> None:
    torch.manual_seed(0)
    whole = Twins(bias).double()
    images = torch.randn(512, 3, 8, 8, dtype=torch.float64)
    structure = find_structure(whole, images[:2])
    removed = {"first:out": [4, 5, 6, 7]}
    cut = remove_units(whole, structure, removed)
    pruned = copy.deepcopy(cut)
    assert reconstruct(pruned, whole, structure, removed, images) == ("first", "second", "head")
    unseen = torch.randn(64, 3, 8, 8, dtype=torch.float64)
    missed, left = ((module(unseen) - whole(unseen)).square().mean().item() for module in (cut, pruned))
    assert left < 1e-4 * missed  # what is left is the pull to what was there: 4 channels / 8192 samples


def test_a_pruned_net_answers_more_like_the_whole_one() -> None:
    """A net with batch norms, a depthwise layer, a residual branch and a mean: on images that it was not fitted on."""
    whole, structure = net()
    images, unseen = torch.randn(256, 3, 8, 8), torch.randn(256, 3, 8, 8)
    with torch.no_grad():
        whole.train()(images)  # gives the norms statistics
        whole.eval()
        removed = {group.id: list(range(group.size // 2)) for group in structure.groups}
        branches = [branch.id for branch in structure.branches]
        cut = remove_branches(remove_units(whole, structure, removed), structure, branches).eval()
        before = {name: value.clone() for name, value in whole.state_dict().items()}
        pruned = copy.deepcopy(cut)
        done = reconstruct(pruned, whole, structure, removed, images)
        gaps = [(module(unseen) - whole(unseen)).square().mean().item() for module in (cut, pruned)]
    assert gaps[1] < 0.5 * gaps[0]
    assert "deep" not in done  # each of its channels reads one
    assert {"conv1", "conv2", "linear"} <= set(done)
    assert all(torch.equal(before[name], value) for name, value in whole.state_dict().items())
    assert not any(part.training for part in pruned.modules())
    assert pruned.norm1.momentum == whole.norm1.momentum


def test_norms_alone_take_the_statistics_of_the_images() -> None:
    module, _ = net()
    images = torch.randn(64, 3, 8, 8)
    before = {name: value.clone() for name, value in module.named_parameters()}
    adapt_norms(module, images)
    assert all(torch.equal(before[name], value) for name, value in module.named_parameters())
    answers = module.conv1(images).detach()
    torch.testing.assert_close(module.norm1.running_mean, answers.mean((0, 2, 3)))
    torch.testing.assert_close(module.norm1.running_var, answers.transpose(0, 1).flatten(1).var(1))


class Odd(nn.Module):
    """Layers that are left alone: one called twice, two with one weight, one with a computed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.twice = nn.Conv2d(8, 8, 1)
        self.one, self.other = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.other.weight = self.one.weight
        self.computed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(self.first(x)).relu()).relu()
        return self.last(self.computed(self.other(self.one(x).relu()).relu()).relu()).mean((2, 3))


def test_layers_that_one_map_does_not_fit_are_left_alone() -> None:
    whole = Odd().eval()
    structure = find_structure(whole, torch.randn(2, 3, 4, 4))
    done = reconstruct(copy.deepcopy(whole), whole, structure, {}, torch.randn(8, 3, 4, 4))
    assert done == ("first", "last")


def test_it_is_the_same_in_as_many_runs_as_memory_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, structure = net()
    images = torch.randn(64, 3, 8, 8)
    with torch.no_grad():
        whole.train()(images)
        whole.eval()
    removed = {group.id: list(range(group.size // 2)) for group in structure.groups}
    cut = remove_units(whole, structure, removed).eval()
    once, often = copy.deepcopy(cut), copy.deepcopy(cut)
    done = reconstruct(once, whole, structure, removed, images)
    runs = list[int]()
    handle = whole.register_forward_hook(lambda *_: runs.append(1))
    monkeypatch.setattr("edgeprune.training.reconstruct.AT_ONCE", 1)
    assert reconstruct(often, whole, structure, removed, images) == done
    handle.remove()
    assert len(runs) == 1 + len(done)  # one to look, then one for each layer
    assert all(torch.equal(a, b) for a, b in zip(once.state_dict().values(), often.state_dict().values(), strict=True))


def test_a_layer_of_very_many_channels_is_left_alone() -> None:
    """As the first linear layer of VGG is: its system would take gigabytes, and images are far too few for it."""
    whole = nn.Sequential(nn.Conv2d(3, 80, 1), nn.Flatten(), nn.Linear(80 * 64, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    structure = find_structure(whole, torch.randn(2, 3, 8, 8))
    assert WIDEST < 80 * 64
    assert reconstruct(copy.deepcopy(whole), whole, structure, {}, torch.randn(16, 3, 8, 8)) == ("0", "4")


def test_as_many_images_at_once_as_the_largest_value_allows() -> None:
    whole = Twins(False)
    assert images_at_once(whole, torch.randn(2, 3, 8, 8)) == AT_ONCE // (8 * 64 * 4)
