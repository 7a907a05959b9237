"""A pruned model as a part of the whole: taken out and put back, nothing else changes."""

from __future__ import annotations

import copy

import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.space.branches import remove_branches, silence_branches
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.submodel import Part


class Net(nn.Module):
    """A residual stream with a branch, a depthwise layer and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.deep = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.outer = nn.Conv2d(8, 6, 1)
        self.linear = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x + self.outer(self.deep(self.inner(x).relu()).relu())
        return self.linear(x.mean((2, 3)))


@given(data=st.data(), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_what_was_cut_out_goes_back_to_its_place(data: st.DataObject, seed: int) -> None:
    """Put back unchanged the whole is as before; changed, the cut-out model is the changed one, and what was gone is as
    before."""
    torch.manual_seed(seed)
    whole = Net()
    structure = find_structure(whole, torch.randn(2, 3, 8, 8))
    removed = {
        g.id: data.draw(st.lists(st.integers(0, g.size - 1), min_size=1, max_size=g.size - 1, unique=True))
        for g in structure.groups
    }
    before = copy.deepcopy(whole.state_dict())
    pruned, part = remove_units(whole, structure, removed), Part(whole, structure, removed)
    part.put_back(whole, pruned)
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in before.items())
    with torch.no_grad():
        for tensor in pruned.state_dict().values():
            tensor.add_(1)
    part.put_back(whole, pruned)
    again = remove_units(whole, structure, removed).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in pruned.state_dict().items())
    for name, tensor in whole.state_dict().items():
        changed = int((tensor != before[name]).sum())
        assert changed == pruned.state_dict()[name].numel(), name
        assert torch.equal(part.take(name, tensor), pruned.state_dict()[name])


def test_a_branch_that_is_gone_keeps_its_weights() -> None:
    whole = Net()
    structure = find_structure(whole, torch.randn(2, 3, 8, 8))
    (branch,) = structure.branches
    pruned = remove_branches(whole, structure, [branch.id])
    with torch.no_grad():
        for tensor in pruned.state_dict().values():
            tensor.add_(1)
    before = copy.deepcopy(whole.state_dict())
    Part(whole, structure, {}).put_back(whole, pruned)
    same = {name for name, tensor in whole.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {name for name in before if name.split(".")[0] in ("inner", "deep", "outer")}


def test_a_silent_branch_stays_silent_when_units_are_cut() -> None:
    """What scores are taken on: the whole model as if the branch were gone, in its copies, too."""
    whole = Net().eval()
    images = torch.randn(2, 3, 8, 8)
    structure = find_structure(whole, images)
    (branch,) = structure.branches
    removed = {"inner:out": [0, 3]}
    gone = remove_branches(whole, structure, [branch.id])(images)
    assert not torch.equal(whole(images), gone)
    silence_branches(whole, structure, [branch.id])
    assert torch.equal(whole(images), gone)
    assert torch.equal(remove_units(whole, structure, removed)(images), gone)


def test_another_model_is_refused() -> None:
    whole = Net()
    structure = find_structure(whole, torch.randn(2, 3, 8, 8))
    with refused(ModelError, "place"):
        Part(whole, structure, {"inner:out": [0]}).put_back(whole, whole)
    with refused(ModelError, "tensor"):
        Part(whole, structure, {}).put_back(whole, nn.Sequential(nn.Linear(2, 2)))
