"""Gates: squeeze-excitation is found as a unit, removed exactly, replaced by its mean, merged without a trace."""

from __future__ import annotations

import pytest
import torch
from gated import Squeeze
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import edgeprune
from edgeprune.graph.trace import operator_name, trace
from edgeprune.reparam.merge import merge
from edgeprune.space.apply import apply, apply_but_gates, apply_plan, make_plan
from edgeprune.space.branches import fold_removed, remove_branches
from edgeprune.space.find import find_structure
from edgeprune.space.gates import UNSET, ConstantGate, set_gate_constants
from edgeprune.space.keep import hold
from edgeprune.space.subnet import Subnet


class Block(nn.Module):
    """Expands, convolves in groups, squeezes, projects; the squeeze may come last instead, as in SENet."""

    def __init__(self, width: int, middle: int, groups: int, *, last: bool = False, bias: bool = False) -> None:
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(width, middle, 1, bias=bias), nn.BatchNorm2d(middle)
        self.act, self.last = nn.Hardswish(), last
        self.se = Squeeze(width if last else middle, 4)
        self.project = nn.Conv2d(middle, width, 3, padding=1, groups=groups, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.act(self.bn1(self.expand(x)))
        out = self.bn2(self.project(out if self.last else self.se(out)))
        return x + (self.se(out) if self.last else out)


def net(groups: int = 1, *, last: bool = False, bias: bool = False, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    blocks = (Block(8, 12, groups, last=last, bias=bias), Block(8, 16, groups, last=last, bias=bias))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, *head).double().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight.data, part.bias.data, part.running_mean):
                tensor.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
    return module


def images(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_gates_are_found_with_what_goes_with_them() -> None:
    structure = find_structure(net(), images())
    gates = [branch for branch in structure.branches if branch.gate]
    assert [gate.id for gate in gates] == ["1.se:gate", "2.se:gate"]
    assert gates[0].output == "1.se.gate"
    assert gates[0].layers == ("1.se.mean", "1.se.reduce", "1.se.expand", "1.se.gate.sigmoid", "1.se.mul")
    assert gates[0].groups == ("1.se.reduce:out",)
    assert [branch.id for branch in structure.branches if not branch.gate] == ["1:branch", "2:branch"]


def test_a_spatial_gate_and_one_that_reads_something_else_are_no_gates() -> None:
    class Spatial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.one, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1), nn.Sigmoid()
            self.other, self.second = nn.Conv2d(3, 8, 1), nn.Sigmoid()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.conv(x)
            out = out * self.gate(self.one(out))
            return (out * self.second(self.other(x.mean((2, 3), keepdim=True)))).mean((2, 3))

    assert not find_structure(Spatial().double().eval(), images()).branches


def test_keep_holds_a_gate() -> None:
    structure = hold(find_structure(net(), images()), ["1.se.reduce"])
    assert [branch.id for branch in structure.branches if branch.gate] == ["2.se:gate"]


@pytest.mark.parametrize("last", [False, True])
def test_removed_in_a_plan_with_units_and_a_branch_around_one(last: bool) -> None:
    module, x = net(last=last), images()
    structure = find_structure(module, x)
    removed = {"1.expand:out": (0, 3), "0:out": (2,)}
    gone = ("1.se:gate", "2.se:gate", "2:branch")
    for order in (gone, gone[::-1]):
        plan = make_plan("net", module, structure, Subnet(removed, order))
        pruned = apply_plan(module, plan, x)  # checks that it computes what the masked model does
        assert isinstance(pruned.get_submodule("1.se.gate"), ConstantGate)
        assert len(pruned.get_submodule("1.se.gate").value) == (7 if last else 10)
        assert not any("2.se" in name for name, _ in pruned.named_parameters())


def test_a_gate_that_never_moves_is_removed_without_a_trace() -> None:
    """Where the gates answer the same to every image, their mean is what they answer."""
    module, x = net(), images()
    for block in (module[1], module[2]):
        nn.init.zeros_(block.se.expand.weight)
        nn.init.normal_(block.se.expand.bias)
    structure = find_structure(module, x)
    gone = ("1.se:gate", "2.se:gate")
    subnet = Subnet({"2.expand:out": (1, 5)}, gone)
    narrow, pruned = apply_but_gates(module, structure, subnet), apply(module, structure, subnet)
    assert float(pruned.get_submodule("1.se.gate").value[0].detach()) == UNSET
    set_gate_constants(pruned, narrow, structure, gone, [x[:3], x[3:]])
    torch.testing.assert_close(pruned(x), narrow(x), rtol=0, atol=1e-12)


def test_the_constant_is_the_mean_over_all_images() -> None:
    module, x = net(), images(5)
    structure = find_structure(module, x)
    answered = []
    module.get_submodule("1.se.gate").register_forward_hook(lambda _, __, out: answered.append(out.detach()))
    pruned = remove_branches(module, structure, ("1.se:gate",))
    set_gate_constants(pruned, module, structure, ("1.se:gate",), [x[:2], x[2:]])
    assert not module.training
    torch.testing.assert_close(pruned.get_submodule("1.se.gate").value, torch.cat(answered).mean((0, 2, 3)))


@given(groups=st.sampled_from([1, 2, 4]), last=st.booleans(), bias=st.booleans(), seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_merged_it_computes_the_same_with_nothing_left_of_it(groups: int, last: bool, bias: bool, seed: int) -> None:
    module, x = net(groups, last=last, bias=bias, seed=seed), images()
    structure = find_structure(module, x)
    gone = [branch.id for branch in structure.branches if branch.gate]
    pruned = remove_branches(module, structure, gone)
    set_gate_constants(pruned, module, structure, gone, [x])
    merged = merge(pruned, x)
    torch.testing.assert_close(merged(x), pruned(x), rtol=0, atol=1e-10)
    program = trace(merged, x)
    fold_removed(program)
    torch.testing.assert_close(program.module()(x), pruned(x), rtol=0, atol=1e-10)
    left = [operator_name(node) for node in program.graph.nodes if node.op == "call_function"]
    assert "mul" not in left
    assert left.count("mean") == 0


def test_where_nothing_can_take_it_the_product_stays() -> None:
    """Behind an activation, and read by two: neither neighbour may be scaled."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.se = nn.Conv2d(3, 8, 3), nn.Hardswish(), Squeeze(8, 4)
            self.one, self.two = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.se(self.act(self.conv(x)))
            return (self.one(out) * self.two(out)).mean((2, 3))

    torch.manual_seed(0)
    module, x = Both().double().eval(), images()
    structure = find_structure(module, x)
    pruned = remove_branches(module, structure, ["se:gate"])
    set_gate_constants(pruned, module, structure, ["se:gate"], [x])
    merged = merge(pruned, x)
    assert isinstance(merged.get_submodule("se.gate"), ConstantGate)
    torch.testing.assert_close(merged(x), pruned(x))


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "efficientnet_b0", "regnety_002", "fbnetv3_b"])
def test_timm_nets(name: str) -> None:
    model = edgeprune.load(name, pretrained=False, input_size=(3, 64, 64))
    structure = find_structure(model.module, model.example_input())
    gates = [branch for branch in structure.branches if branch.gate]
    squeezes = [part for part in model.module.modules() if type(part).__name__ in ("SqueezeExcite", "SEModule")]
    assert len(gates) == len(squeezes) > 5
    gone = [gate.id for gate in gates]
    pruned = remove_branches(model.module, structure, gone)
    merged = merge(pruned, model.example_input())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(merged(x), pruned.eval()(x), rtol=1e-3, atol=1e-3)
    assert not [n for n, part in merged.named_modules() if isinstance(part, ConstantGate)]
