"""The property: a pruned model computes what the masked one does, to 1e-12."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from attention_zoo import ATTENTION
from hypothesis import given, settings
from hypothesis import strategies as st
from structure_zoo import ZOO, image, randomized
from torch import Tensor, nn

from edgeprune.models.timm_import import import_timm
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units
from edgeprune.space.units import Structure

MODELS = {**ZOO, **ATTENTION}


@functools.cache
def found(name: str) -> tuple[nn.Module, Structure]:
    module = randomized(MODELS[name]())
    return module, find_structure(module, image())


def some_units(structure: Structure, seed: int, share: float | None = None) -> dict[str, list[int]]:
    """Random units; at least one of each group stays."""
    random = np.random.default_rng(seed)
    removed = {}
    for group in structure.groups:
        count = int(random.integers(0, group.size)) if share is None else int(group.size * share)
        removed[group.id] = sorted(random.choice(group.size, count, replace=False).tolist())
    return removed


def distance(given: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((given - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_pruned_is_masked(name: str, seed: int) -> None:
    module, structure = found(name)
    assert structure.groups
    removed = some_units(structure, seed)
    with torch.no_grad():
        pruned = remove_units(module, structure, removed)(image())
        masked = mask_units(module, structure, removed)(image())
    assert distance(pruned, masked) < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_masking_changes_the_output(name: str) -> None:
    """Guards the property: with nothing to see, pruned == masked would say nothing."""
    module, structure = found(name)
    for group in structure.groups:
        with torch.no_grad():
            masked = mask_units(module, structure, {group.id: range(group.size - 1)})(image())
            assert distance(masked, module(image())) > 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_pruned_model_trains_and_is_pruned_again(name: str) -> None:
    module, structure = found(name)
    removed = some_units(structure, 3, share=0.4)
    pruned = remove_units(module, structure, removed)
    kept = {group.id: group.size - len(removed[group.id]) for group in structure.groups}
    again = find_structure(pruned, image())
    assert again.sizes == kept
    assert [layer.operation for layer in again.layers] == [layer.signature(kept) for layer in structure.layers]
    pruned.train()
    optimizer = torch.optim.SGD(pruned.parameters(), lr=1e-3)
    nn.functional.cross_entropy(pruned(image()), torch.tensor([0, 1])).backward()
    optimizer.step()
    pruned.eval()
    more = some_units(again, 4, share=0.3)
    with torch.no_grad():
        twice = remove_units(pruned, again, more)(image())
        assert distance(twice, mask_units(pruned, again, more)(image())) < 1e-12


TIMM = (
    *("resnet18", "mobilenetv2_100", "efficientnet_lite0", "mobilenetv3_small_100", "densenet121", "regnetx_002"),
    *("convnext_atto", "vit_tiny_patch16_224"),
)


@pytest.mark.parametrize("name", TIMM)
def test_timm_models(name: str) -> None:
    vit = name.startswith("vit")
    options = {"img_size": 32} if vit else {"pad_type": "same"} if name.startswith(("mobilenetv2", "effi")) else {}
    module = randomized(import_timm().create_model(name, **options))
    x = image(32)
    structure = find_structure(module, x)
    assert structure.groups
    removed = some_units(structure, 11)
    kept = {group.id: group.size - len(removed[group.id]) for group in structure.groups}
    pruned = remove_units(module, structure, removed)
    with torch.no_grad():
        assert distance(pruned(x), mask_units(module, structure, removed)(x)) < 1e-12
        assert distance(pruned(x), module(x)) > 1e-6
    weights = sum(p.numel() for p in pruned.parameters())
    assert weights < sum(p.numel() for p in module.parameters())
    assert all(layer.signature(structure.sizes) == layer.operation for layer in structure.layers)
    assert all(layer.in_width.at(kept) >= 1 and layer.out_width.at(kept) >= 1 for layer in structure.layers)
