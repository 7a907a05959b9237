"""ReLUs that change nothing are not exported, and all others are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.artifacts.jobs import Output
from exporters.relus import drop_idle_relus
from exporters.tflite import TFLiteExporter


class Net(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.between(self.first(x)))).mean((2, 3))


def program_of(between: Callable[[Tensor], Tensor]) -> torch.export.ExportedProgram:
    return torch.export.export(Net(between).eval(), (torch.randn(1, 3, 16, 16),), strict=False)


def relus_in(program: torch.export.ExportedProgram) -> int:
    return sum(str(node.target) in ("aten.relu.default", "aten.relu_.default") for node in program.graph.nodes)


@pytest.mark.parametrize(
    ("between", "left"),
    [
        (F.relu, 1),
        (lambda x: F.relu(F.relu_(x)), 1),
        (lambda x: F.max_pool2d(F.relu(x), 3, 2, 1), 1),
        (F.relu6, 0),
        (torch.sigmoid, 0),
        (lambda x: torch.clamp(x, min=0.5), 0),
        (lambda x: x, 1),
        (lambda x: F.relu(x) - 0.5, 2),
        (lambda x: torch.clamp(x, min=-0.5), 1),
        (F.hardtanh, 1),
        (lambda x: F.max_pool2d(x, 2), 1),
    ],
)
def test_only_a_relu_of_what_is_not_negative_goes(between: Callable[[Tensor], Tensor], left: int) -> None:
    program, images = program_of(between), torch.randn(1, 3, 16, 16)
    before = program.module()(images)
    drop_idle_relus(program)
    assert relus_in(program) == left
    assert torch.equal(program.module()(images), before)


def test_a_relu_that_is_the_answer_stays() -> None:
    class Ends(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(F.relu(x))

    program = torch.export.export(Ends(), (torch.randn(1, 4),), strict=False)
    drop_idle_relus(program)
    assert relus_in(program) == 2


def test_an_int8_file_has_no_relu_that_stands_alone(tmp_path: Path) -> None:
    program = program_of(lambda x: F.relu(F.relu(x)))
    output = Output(precision="int8", file=tmp_path / "m.tflite", describe=False)
    list(TFLiteExporter().convert(program, (output,), torch.randn(4, 3, 16, 16)))
    interpreter = Interpreter(str(output.file))
    assert "RELU" not in {operator["op_name"] for operator in interpreter._get_ops_details()}
