"""Isomorphic pruning: alike groups are ranked together, and others are no business of theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vit import small_vit

from edgeprune.errors import RecipeError
from edgeprune.methods.isomorphic import AlikeThresholds, alike
from edgeprune.models.timm_import import import_timm
from edgeprune.recipe_file import parse_recipe
from edgeprune.space.find import find_structure
from edgeprune.space.units import Structure


@pytest.fixture(scope="module")
def vit() -> tuple[torch.nn.Module, Structure]:
    net = small_vit()
    return net, find_structure(net, torch.randn(2, 1, 16, 16))


def test_the_blocks_of_a_vit_are_alike_dimension_by_dimension(vit: tuple[torch.nn.Module, Structure]) -> None:
    classes = alike(*vit)
    ends = [{name.split(".")[-1] for name in names} for names in classes]
    assert [len(names) for names in classes] == [1, 2, 2, 2, 2]
    assert [end.pop() for end in ends[1:]] == ["attn:heads", "attn:qk", "attn:v", "fc1:out"]


def test_hidden_channels_and_streams_of_a_resnet_are_told_apart() -> None:
    net = import_timm().create_model("resnet18", num_classes=10).eval()
    structure = find_structure(net, torch.randn(1, 3, 64, 64))
    (hidden,) = (names for names in alike(net, structure) if "layer1.0.conv1:out" in names)
    assert set(hidden) == {f"layer{stage}.{block}.conv1:out" for stage in range(1, 5) for block in range(2)}
    assert all("conv1:out" not in name for names in alike(net, structure) if names != hidden for name in names[1:])


@given(share=st.floats(0, 1), seed=st.integers(0, 999), factor=st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_of_each_class_the_same_share_goes_however_its_scores_are_scaled(
    vit: tuple[torch.nn.Module, Structure], share: float, seed: int, factor: float
) -> None:
    net, structure = vit
    rng = np.random.default_rng(seed)
    scores = {group.id: rng.exponential(size=group.size) for group in structure.groups}
    kept = AlikeThresholds(net, structure, scores).kept(share)
    for names in alike(net, structure):
        size = sum(structure.sizes[name] for name in names)
        gone = size - sum(kept[name] for name in names)
        assert abs(gone - share * size) < 1 + 1e-6
    scaled = {name: values * factor if name.endswith(":out") else values for name, values in scores.items()}
    assert AlikeThresholds(net, structure, scaled).kept(share) == kept


def test_it_is_an_allocator_of_scores_and_the_methods_own() -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}}
    assert parse_recipe({**tree, "prune": {"method": "magnitude", "allocator": "isomorphic"}})
    with refused(RecipeError, "`isomorphic`", "`judged`"):
        parse_recipe({**tree, "prune": {"method": "isomorphic", "allocator": "judged"}})
