"""REPrune: its clusters are scipy's, its cover is near the best there is, and its choice is what the rule says."""

from __future__ import annotations

import itertools
import math
from zlib import crc32

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster
from scipy.cluster.hierarchy import linkage as scipy_linkage
from torch import nn
from toy_structures import net, problem

from edgeprune.errors import ModelError
from edgeprune.latency.cost import MacsCost
from edgeprune.methods.compact import Uniform
from edgeprune.methods.reprune import Cover, clusters, cover, coverage, cut_height, kernel_sets, linkage
from edgeprune.methods.slimming import batch_norm_scales, telling_scales
from edgeprune.search.rules import RuleAllocator
from edgeprune.space.decisions import Limits
from edgeprune.space.find import find_structure

SEEDS = st.integers(0, 10_000)


@given(count=st.integers(2, 24), elements=st.sampled_from([1, 4, 9, 25]), seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_clusters_match_scipy(count: int, elements: int, seed: int) -> None:
    """Heights and, at every cut, the partition."""
    kernels = np.random.default_rng(seed).normal(size=(count, elements))
    ours, theirs = linkage(kernels), scipy_linkage(kernels, "ward")
    np.testing.assert_allclose(ours[:, 2], theirs[:, 2], rtol=1e-9)
    assert (np.diff(ours[:, 2]) >= 0).all()
    for merges in range(1, count):
        height = cut_height([ours], merges) * (1 + 1e-12)
        mine, reference = clusters([ours], height)[0], fcluster(theirs, height, "distance")
        assert ((mine[:, None] == mine) == (reference[:, None] == reference)).all()
        assert mine.max() <= count - merges


def test_a_merge_height_is_the_paper_s() -> None:
    """sqrt(2 I) with I = |A||B| / (|A| + |B|) ||m_A - m_B||^2, here of {0, 1} and {5}."""
    merged = linkage(np.array([[0.0], [1.0], [5.0]]))
    assert merged[:, 2].tolist() == pytest.approx([1.0, math.sqrt(2 * (2 / 3) * 4.5**2)])


@given(units=st.integers(2, 8), sets=st.integers(1, 6), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_cover_is_near_the_best(units: int, sets: int, data: st.DataObject) -> None:
    """Greedy maximum coverage reaches 1 - 1/e of the optimum, by brute force (Nemhauser et al. 1978)."""
    seed, keep = data.draw(SEEDS), data.draw(st.integers(1, units))
    labels = np.random.default_rng(seed).integers(1, units + 1, size=(sets, units)).astype(np.int32)
    picked = cover(labels, keep, np.random.default_rng(seed))
    assert len(set(picked)) == keep
    best = max(coverage(labels, chosen) for chosen in itertools.combinations(range(units), keep))
    assert (1 - 1 / math.e) * best - 1e-9 <= coverage(labels, picked) <= best


@given(units=st.integers(1, 12), sets=st.integers(1, 8), clusters=st.integers(1, 12), data=st.data())
@settings(max_examples=80, deadline=None)
def test_the_cover_picks_as_the_rule_says(units: int, sets: int, clusters: int, data: st.DataObject) -> None:
    """Each kernel's 1 is taken away as soon as one of its cluster is picked; ties as they are drawn."""
    seed, keep = data.draw(SEEDS), data.draw(st.integers(1, units))
    labels = np.random.default_rng(seed).integers(1, clusters + 1, size=(sets, units)).astype(np.int32)
    rng, ones, expected = np.random.default_rng(seed), np.ones((sets, units), dtype=int), list[int]()
    for _ in range(keep):
        sums = np.where(np.isin(np.arange(units), expected), -1, ones.sum(axis=0))
        expected.append(int(rng.choice(np.flatnonzero(sums == sums.max()))))
        ones[labels == labels[:, [expected[-1]]]] = 0
    assert cover(labels, keep, np.random.default_rng(seed)) == expected


def test_each_pick_is_the_one_with_most_uncovered_kernels() -> None:
    labels = np.array([[1, 1, 2, 3], [1, 2, 2, 2], [1, 1, 1, 2]], dtype=np.int32)
    first = cover(labels, 4, np.random.default_rng(0))
    left = np.ones_like(labels, dtype=bool)
    for number, unit in enumerate(first):
        scores = {u: int(left[:, u].sum()) for u in range(4) if u not in first[:number]}
        assert scores[unit] == max(scores.values())
        left &= labels != labels[:, [unit]]


@given(filters=st.integers(3, 10), inputs=st.integers(2, 4), keep=st.integers(1, 9), seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_choice_is_the_paper_s_rule(filters: int, inputs: int, keep: int, seed: int) -> None:
    """Written again with scipy: each input channel's kernels, all cut at the greatest height."""
    torch.manual_seed(seed)
    made = nn.Sequential(
        *(nn.Conv2d(3, inputs, 1), nn.ReLU(), nn.Conv2d(inputs, filters, 3), nn.ReLU(), nn.Conv2d(filters, 4, 1)),
        nn.Flatten(),
    ).double()
    structure = find_structure(made, torch.randn(2, 3, 8, 8).double())
    keep = min(keep, filters - 1)
    weight = made[2].weight.detach().numpy()
    trees = [scipy_linkage(weight[:, j].reshape(filters, -1), "ward") for j in range(inputs)]
    height = max(tree[filters - keep - 1, 2] for tree in trees)
    labels = np.stack([fcluster(tree, height * (1 + 1e-12), "distance") for tree in trees])
    rng = np.random.default_rng([0, crc32(b"2:out"), keep])  # ties fall alike
    stays = cover(labels.astype(np.int32), keep, rng)
    assert Cover(made, structure, seed=0).gone("2:out", keep) == tuple(sorted(set(range(filters)) - set(stays)))


def test_all_channels_of_a_layer_are_cut_at_the_greatest_height() -> None:
    near, far = np.array([[0.0], [1.0], [3.0]]), np.array([[0.0], [10.0], [30.0]])
    trees = [linkage(near), linkage(far)]
    assert cut_height(trees, 1) == trees[1][0, 2] == pytest.approx(10.0)
    labels = clusters(trees, cut_height(trees, 1))
    assert [len(set(row)) for row in labels.tolist()] == [1, 2]  # the near ones have long become one


def test_twins_go_first() -> None:
    """Of filters that equal one another, all but one go before any other."""
    made, structure = net()
    with torch.no_grad():
        made.conv1.weight[1], made.conv1.weight[2] = made.conv1.weight[0], made.conv1.weight[0]
        made.deep.weight[1], made.deep.weight[2] = made.deep.weight[0], made.deep.weight[0]
    gone = Cover(made, structure).gone("conv1:out", 6)
    assert len(gone) == 2
    assert set(gone) < {0, 1, 2}


@pytest.mark.parametrize("group", ["conv1:out", "conv2:out"])
def test_every_width_is_kept_and_a_seed_repeats(group: str) -> None:
    made, structure = net()
    size = structure.sizes[group]
    one, again = Cover(made, structure, seed=3), Cover(made, structure, seed=3)
    for keep in range(1, size + 1):
        gone = one.gone(group, keep)
        assert len(gone) == size - keep == len(set(gone))
        assert again.gone(group, keep) == gone


def test_kernels_of_coupled_layers_and_of_depthwise_ones() -> None:
    made, structure = net()
    groups = {group.id: group for group in structure.groups}
    assert [sets.shape for sets in kernel_sets(made, groups["conv1:out"])] == [(3, 8, 9), (1, 8, 9)]
    stream = [sets.shape for sets in kernel_sets(made, groups["conv2:out"])]
    assert stream == [(8, 6, 1), (6, 6, 9)]


def test_weights_that_are_no_numbers_are_refused() -> None:
    made, structure = net()
    with torch.no_grad():
        made.conv1.weight[0, 0, 0, 0] = float("nan")
    with refused(ModelError, "finite", "conv1.weight"):
        Cover(made, structure).gone("conv1:out", 4)


@given(share=st.floats(0.05, 0.95), seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_layer_sparsity_is_the_global_quantile_of_the_scales(share: float, seed: int) -> None:
    made, structure = net(seed)
    kept = batch_norm_scales(made, structure).kept(share)
    one = made.norm1.weight.detach().double().abs() + made.norm2.weight.detach().double().abs()
    values = {"conv1:out": (one / 2).numpy(), "conv2:out": made.norm3.weight.detach().double().abs().numpy()}
    together = np.sort(np.concatenate(list(values.values())))
    threshold = together[max(0, math.ceil(share * len(together)) - 1)]
    for name, scales in values.items():
        above = int((scales > threshold).sum())
        assert kept[name] == (above or len(scales))  # a layer that would go as a whole is left alone


def test_scales_that_tell_nothing_are_refused() -> None:
    made, structure = net()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    with refused(ModelError, 2, "scales", "equal"):
        telling_scales(made, structure)
    nn.init.zeros_(made.norm3.weight)  # as timm leaves the last norm of a block: no unit of a layer is told either
    with refused(ModelError, "scales", "equal"):
        telling_scales(made, structure)
    bare = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    with refused(ModelError, "batch norm"):
        telling_scales(bare, find_structure(bare, torch.randn(2, 3, 8, 8)))


def test_a_layer_of_one_filter_keeps_it() -> None:
    """It is no group of units; the next layer has one kernel a filter, which is enough to choose by."""
    made = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten())
    structure = find_structure(made, torch.randn(1, 3, 8, 8))
    ranking, costs = Cover(made, structure), MacsCost()
    uniform = Uniform(structure.sizes)
    allocator = RuleAllocator(problem(structure, ranking, costs, lambda *_: 0.0, Limits(1, 1)), uniform)
    assert allocator.smallest().subnet.kept(structure) == {"2:out": 1}
    assert len(ranking.gone("2:out", 3)) == 5
