"""Recording: the operators of torch.export's graph, with their shapes and places, and a module left as it was."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from facts import refused
from structure_zoo import InvertedResidual, image, randomized
from torch import Tensor, fx, nn

from edgeprune.errors import ModelError
from edgeprune.graph.record import record
from edgeprune.graph.trace import describe, module_path, node_frames, trace
from edgeprune.models.timm_import import import_timm

# torch.export's own checks, and what it makes of a tensor that the code writes down.
_EXPORTS_OWN = ("aten._assert_tensor_metadata.default", "aten.lift_fresh_copy.default", "aten.lift_fresh.default")


class Mixed(nn.Module):
    """Constants, new tensors, writing in place, several results, a helper, a module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.register_buffer("shift", torch.arange(8.0))
        self.plain = torch.ones(8)  # no buffer: a constant
        self.cache: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.fc(x).chunk(2, dim=-1)
        y = self.fc(torch.cat([a, b], dim=-1)).relu_()
        steps = torch.arange(8, device=x.device).to(x.dtype)
        self.cache["steps"] = steps
        return self._shifted(y) * steps, y + torch.zeros_like(x) + torch.linspace(0, 1, 8)

    def _shifted(self, y: Tensor) -> Tensor:
        return y + self.shift - self.plain


def calls(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op == "call_function" and str(n.target) not in _EXPORTS_OWN]


def shapes(node: fx.Node) -> list[tuple[int, ...]]:
    value = node.meta["val"]
    return [tuple(part.shape) for part in (value if isinstance(value, list | tuple) else [value])]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (Mixed, (2, 8)),
        (InvertedResidual, (2, 3, 16, 16)),
        (lambda: import_timm().create_model("resnet10t"), (1, 3, 64, 64)),
        (lambda: import_timm().create_model("vit_tiny_patch16_224", img_size=32), (1, 3, 32, 32)),
        (lambda: import_timm().create_model("swin_tiny_patch4_window7_224"), (1, 3, 224, 224)),
        (lambda: import_timm().create_model("edgenext_xx_small"), (1, 3, 64, 64)),
    ],
    ids=["mixed", "inverted_residual", "resnet", "vit", "swin", "edgenext"],
)
def test_the_operators_are_those_of_torch_export(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    module = make().eval()
    x = torch.randn(shape)
    recorded = record(module, x)
    here, there = calls(recorded.graph), calls(trace(module, x).graph)
    assert [str(n.target) for n in here] == [str(n.target) for n in there]
    assert [shapes(n) for n in here] == [shapes(n) for n in there]
    for mine, theirs in zip(here, there, strict=True):
        stack = theirs.meta.get("nn_module_stack")
        assert module_path(mine) == (list(stack.values())[-1][0] if stack else "")


def test_values_flow_from_where_they_were_made() -> None:
    recorded = record(Mixed(), torch.randn(2, 8))
    names = dict(recorded.parameters)
    assert sorted(names.values()) == ["fc.bias", "fc.weight", "shift"]
    for node in calls(recorded.graph):
        if str(node.target).startswith("aten.linear"):
            assert [names.get(operand) for operand in node.all_input_nodes[1:]] == ["fc.weight", "fc.bias"]
    subtraction = next(n for n in calls(recorded.graph) if "sub" in str(n.target))
    constant = subtraction.all_input_nodes[1]
    assert constant.op == "placeholder"
    assert constant not in recorded.parameters
    multiplication = next(n for n in calls(recorded.graph) if "mul" in str(n.target))
    assert [str(n.target) for n in multiplication.all_input_nodes] == ["aten.sub.Tensor", "aten.to.dtype"]
    assert [n.op for n in recorded.inputs] == ["placeholder"]
    chosen = [n for n in calls(recorded.graph) if n.target is operator.getitem]
    assert [n.args[1] for n in chosen] == [0, 1]


def test_a_node_knows_the_helper_s_line() -> None:
    recorded = record(Mixed(), torch.randn(2, 8))
    subtraction = next(n for n in calls(recorded.graph) if "sub" in str(n.target))
    file, line, first = node_frames(subtraction)[-1]
    assert file == __file__
    assert first == line - 1
    assert describe(subtraction).endswith("`return y + self.shift - self.plain`")


def test_the_module_is_left_as_it_was() -> None:
    module = Mixed().train()
    before = copy.deepcopy(module.state_dict())
    record(module, torch.randn(2, 8))
    assert module.training
    assert module.cache == {}
    assert not module._forward_hooks
    assert not module._forward_pre_hooks
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(value.is_meta for value in module.state_dict().values())


def test_what_fails_leaves_torch_as_it_was() -> None:
    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(3, 5)

    with pytest.raises(ModelError, match=r"test_record\.py:\d+ `return x\.view\(3, 5\)`"):
        record(Failing(), torch.randn(2, 8))
    assert not torch.zeros(2).is_meta
    record(randomized(InvertedResidual()), image())


@pytest.mark.parametrize(
    "decide", [lambda x: x if x.max() > 1 else -x, lambda x: x * x.max().item(), lambda x: x[x > 0]]
)
def test_code_that_asks_for_values_is_refused(decide: Callable[[Tensor], Tensor]) -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return decide(x)

    with pytest.raises(ModelError, match="the model cannot be traced"):
        record(Deciding(), torch.randn(2, 8))


def test_code_that_asks_for_the_device_is_followed_where_the_model_is() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.plain = nn.Linear(8, 8), torch.ones(8)

        def forward(self, x: Tensor) -> Tensor:
            if x.device.type == "meta":
                raise NotImplementedError("no kernels there")
            with torch.autocast(device_type=x.device.type, enabled=False):
                return self.fc(x) + self.plain + torch.arange(8, device=x.device)

    recorded = record(Cast(), torch.randn(2, 8))
    here, there = calls(recorded.graph), ["linear", "add", "arange", "add"]
    assert [str(n.target).split(".")[1] for n in here] == there
    assert [tuple(n.meta["val"].shape) for n in here] == [(2, 8), (2, 8), (8,), (2, 8)]


def test_a_constant_that_is_written_to_is_what_was_written() -> None:
    class Filled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            out = torch.zeros(8)
            out.add_(x[0])
            return out * 2

    recorded = record(Filled(), torch.randn(2, 8))
    multiplication = next(n for n in calls(recorded.graph) if "mul" in str(n.target))
    assert [str(n.target) for n in multiplication.all_input_nodes] == ["aten.add_.Tensor"]


def test_an_answer_that_hides_its_tensors_is_refused() -> None:
    @dataclass
    class Answer:
        logits: Tensor

    class Hiding(nn.Module):
        def forward(self, x: Tensor) -> Answer:
            return Answer(x * 2)

    class Silent(nn.Module):
        def forward(self, x: Tensor) -> int:
            return len(x)

    with refused(ModelError, "Answer", "tensors"):
        record(Hiding(), torch.randn(2, 8))
    with refused(ModelError, "tensor"):
        record(Silent(), torch.randn(2, 8))
