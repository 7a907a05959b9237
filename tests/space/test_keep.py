"""What a user keeps is held, and nothing is called otherwise for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attention_zoo import ATTENTION
from facts import refused
from structure_zoo import ZOO, ResNet, image, randomized
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.models.timm_import import import_timm
from edgeprune.space.apply import apply_plan, make_plan
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.keep import hold
from edgeprune.space.subnet import Subnet
from edgeprune.space.units import Structure, Width

NETS = {**ZOO, **{name: ATTENTION[name] for name in ("fused attention", "separate attention")}}


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return import_timm().create_model("test_vit", pretrained=False, img_size=64).eval()


@pytest.fixture(scope="module")
def free(vit: nn.Module) -> Structure:
    return find_structure(vit, torch.randn(1, 3, 64, 64))


def branch_ids(structure: Structure) -> list[str]:
    return [branch.id for branch in structure.branches]


def test_branches_are_called_alike_whatever_is_kept(vit: nn.Module, free: Structure) -> None:
    held = hold(free, ["blocks.*.mlp"])
    assert branch_ids(held) == [name for name in branch_ids(free) if ".mlp" not in name]
    assert branch_ids(held)
    (first, *_) = branch_ids(held)
    assert "attn" in first
    plan = make_plan("timm:test_vit", vit, held, Subnet(dropped=(first,)))
    pruned = apply_plan(vit, plan, torch.randn(1, 3, 64, 64))  # which searches without `keep`, as another process does
    assert not list(pruned.blocks[0].attn.parameters())


@pytest.mark.parametrize("inside", ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2", "blocks.0.mlp.act", "blocks.0.mlp"])
def test_a_branch_stays_where_something_in_it_is_kept(free: Structure, inside: str) -> None:
    gone = [branch.id for branch in free.branches if "blocks.0.mlp" in (*branch.modules, branch.output)]
    assert len(gone) == 1
    assert branch_ids(hold(free, [inside])) == [name for name in branch_ids(free) if name not in gone]


def test_a_block_that_is_kept_may_lose_its_branches(free: Structure) -> None:
    assert branch_ids(hold(free, ["blocks.0"])) == branch_ids(free)  # its width is the same without them


@pytest.mark.parametrize("name", NETS)
def test_what_is_held_counts_whole_and_nothing_else_changes(name: str) -> None:
    module = randomized(NETS[name]())
    free = find_structure(module, image())
    random = np.random.default_rng(0)
    held_groups = 0
    for output in free.outputs:
        held = hold(free, [output.module])
        assert held.sizes == {group: size for group, size in free.sizes.items() if group not in output.groups}
        assert [entry.name for entry in held.frozen if entry.asked] == [g for g in free.sizes if g in output.groups]
        assert all(f"{output.module} fits '{output.module}'" in e.reason for e in held.frozen if e.asked)
        held_groups += len(output.groups)
        kept = {group: int(random.integers(1, size + 1)) for group, size in held.sizes.items()}
        whole = {**free.sizes, **kept}
        for before, after in zip(widths(free), widths(held), strict=True):
            assert after.at(kept) == before.at(whole)
            assert set(after.groups) == set(before.groups) - set(output.groups)
        removed = {group: range(kept[group], size) for group, size in held.sizes.items() if kept[group] < size}
        same, other = (remove_units(module, s, removed).state_dict() for s in (free, held))
        assert all(torch.equal(same[key], other[key]) for key in {**same, **other})
    assert held_groups or not free.sizes


def widths(structure: Structure) -> list[Width]:
    layers = (*structure.layers, *structure.products, *structure.weights)
    sides = [width for layer in layers for width in (layer.in_width, layer.out_width)]
    return [*sides, *(size.value for size in structure.code_sizes)]


def test_of_several_patterns_the_first_is_the_reason() -> None:
    free = find_structure(randomized(ResNet()), image())
    held = hold(hold(free, []), ["blocks.0.*", "blocks.0.conv1"])
    (entry,) = (entry for entry in held.frozen if entry.name == "blocks.0.conv1.0:out")
    assert "'blocks.0.*'" in entry.reason
    with refused(ModelError, "keep", "'block.0.conv1'", "blocks.0.conv1"):
        hold(free, ["block.0.conv1"])
