"""Residual branches: found, removed exactly, written in a plan, and pruned again."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from facts import refused
from torch import nn

from edgeprune.errors import ModelError
from edgeprune.graph.trace import operator_name, trace
from edgeprune.models.timm_import import import_timm
from edgeprune.space.apply import apply_plan, make_plan
from edgeprune.space.branches import Zeros, branches_masked, fold_removed, remove_branches
from edgeprune.space.find import find_structure
from edgeprune.space.keep import hold
from edgeprune.space.masks import mask_units
from edgeprune.space.subnet import Subnet


class Block(nn.Module):
    """A basic block; `in_place` adds into the branch's output, as timm's does."""

    def __init__(self, width: int, middle: int, *, in_place: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle)
        self.act1 = nn.ReLU(inplace=in_place)
        self.conv2, self.bn2 = nn.Conv2d(middle, width, 3, padding=1), nn.BatchNorm2d(width)
        self.in_place = in_place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        if self.in_place:
            out += x
            return F.relu_(out)
        return F.relu(x + out)


class Down(nn.Module):
    """A block whose skip is a convolution: neither side can go."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width_in, width, 3, 2, 1), nn.BatchNorm2d(width)
        self.skip = nn.Conv2d(width_in, width, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)) + self.skip(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8, 12), Block(8, 6, in_place=True), Down(8, 16), Block(16, 10))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = Net().double().eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight.data, part.bias.data, part.running_mean):
                tensor.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_branches_are_found_with_what_goes_with_them(net: nn.Module, images: torch.Tensor) -> None:
    structure = find_structure(net, images)
    assert [b.id for b in structure.branches] == ["blocks.0:branch", "blocks.1:branch", "blocks.3:branch"]
    first = structure.branches[0]
    assert first.output == "blocks.0.bn2"
    assert first.layers == ("blocks.0.conv1", "blocks.0.conv2")
    assert first.groups == ("blocks.0.conv1:out",)


@pytest.mark.parametrize("which", [[0], [1], [2], [0, 1], [0, 1, 2]])
def test_removed_equals_masked(net: nn.Module, images: torch.Tensor, which: list[int]) -> None:
    structure = find_structure(net, images)
    names = [structure.branches[i].id for i in which]
    before = net(images)
    removed = remove_branches(net, structure, names)
    with branches_masked(net, structure, names):
        masked = net(images)
    assert torch.allclose(removed(images), masked, rtol=1e-12, atol=0)
    assert not torch.allclose(masked, before)
    assert torch.equal(net(images), before)  # the given model is as it was


def test_plan_of_units_and_branches(net: nn.Module, images: torch.Tensor) -> None:
    structure = find_structure(net, images)
    units = {"blocks.0.conv1:out": (1, 5), "blocks.3.conv1:out": (0, 2, 9)}
    plan = make_plan("net", net, structure, Subnet(units, ("blocks.1:branch",)))
    pruned = apply_plan(net, type(plan).model_validate_json(plan.model_dump_json()), images)
    masked = mask_units(net, structure, units)
    with branches_masked(masked, structure, ["blocks.1:branch"]):
        expected = masked(images)
    assert torch.allclose(pruned(images), expected, rtol=1e-12, atol=0)
    assert isinstance(pruned.get_submodule("blocks.1.bn2"), Zeros)
    assert "blocks.1.conv1.weight" not in pruned.state_dict()


def test_pruned_model_trains_and_is_pruned_again(net: nn.Module, images: torch.Tensor) -> None:
    structure = find_structure(net, images)
    pruned = remove_branches(net, structure, ["blocks.1:branch"]).train()
    pruned(images).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in pruned.parameters())
    again = find_structure(pruned.eval(), images)
    assert [b.id for b in again.branches] == ["blocks.0:branch", "blocks.3:branch"]
    assert {g.id for g in again.groups} == {g.id for g in structure.groups} - {"blocks.1.conv1:out"}


def test_zeros_leave_the_exported_graph(net: nn.Module, images: torch.Tensor) -> None:
    structure = find_structure(net, images)
    pruned = remove_branches(net, structure, [b.id for b in structure.branches])
    program = trace(pruned, images)
    fold_removed(program)
    names = [operator_name(n) for n in program.graph.nodes if n.op == "call_function"]
    assert "zeros_like" not in names
    assert names.count("add") == 1  # the skip with a convolution
    assert torch.equal(program.module()(images), pruned(images))


def test_keep_and_unknown_branches(net: nn.Module, images: torch.Tensor) -> None:
    structure = hold(find_structure(net, images), ["blocks.0.conv2"])
    assert "blocks.0:branch" not in [b.id for b in structure.branches]
    with refused(ModelError, "branch", "blocks.2:branch"):
        remove_branches(net, structure, ["blocks.2:branch"])


class Reader(nn.Module):
    """The branch's inside is read elsewhere too: it cannot go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = self.conv1(x)
        return (F.relu(x) + self.conv2(inside)).mean((2, 3)) + inside.mean((2, 3))


def test_a_branch_that_is_read_elsewhere_stays() -> None:
    assert find_structure(Reader().eval(), torch.randn(1, 3, 8, 8)).branches == ()


class OwnZeros(nn.Module):
    """Zeros of the user's own: one that broadcasts, one that is scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bias = nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        wide = torch.zeros_like(x) + self.bias
        return torch.add(torch.zeros_like(x), x, alpha=3).mean((2, 3)) + wide.sum((2, 3))


def test_the_users_own_zeros_are_left_alone() -> None:
    torch.manual_seed(0)
    module, x = OwnZeros().eval(), torch.randn(1, 3, 8, 8)
    program = trace(module, x)
    fold_removed(program)
    assert torch.equal(program.module()(x), module(x))


def test_a_branch_with_a_layer_scale_goes() -> None:
    module = import_timm().create_model("convnext_atto", depths=(1, 1, 1, 1)).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    structure = find_structure(module, x)
    assert [branch.id for branch in structure.branches] == [f"stages.{n}.blocks.0:branch" for n in range(4)]
    with torch.no_grad():
        for number in range(4):
            module.stages[number].blocks[0].gamma.fill_(0.5)
        pruned = remove_branches(module, structure, ["stages.2.blocks.0:branch"])
        module.stages[2].blocks[0].gamma.fill_(0)
        torch.testing.assert_close(pruned(x), module(x), rtol=1e-12, atol=1e-12)
    program = trace(pruned, x)
    fold_removed(program)
    assert "zeros_like" not in {operator_name(node) for node in program.graph.nodes if node.op == "call_function"}
