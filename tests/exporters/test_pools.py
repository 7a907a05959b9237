"""Padded max pools: the same maxima, and an int8 .tflite that quantizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from exporting import export
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from exporters.pools import average_plainly, pad_max_pools


class Stem(nn.Module):
    """A ResNet's stem; `relu` says whether what is pooled can be negative."""

    def __init__(self, *, relu: bool, kernel: int = 3, stride: int = 2, padding: int = 1) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(kernel, stride, padding)
        self.relu, self.head = relu, nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x) - 1
        x = self.pool(F.relu(x) if self.relu else x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"), [(3, 2, 1, 12), (3, 2, 1, 13), (3, 1, 1, 9), (5, 3, 2, 14)]
)
def test_rewritten_program_computes_the_same(relu: bool, kernel: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    module, x = Stem(relu=relu, kernel=kernel, stride=stride, padding=padding).eval(), torch.randn(1, 3, side, side)
    program = torch.export.export(module, (x,), strict=False)
    pad_max_pools(program)
    pools = [n for n in program.graph.nodes if n.target is torch.ops.aten.max_pool2d.default]
    assert [len(n.args) for n in pools] == [3]  # no padding left in the pool
    assert torch.equal(program.module()(x), module(x))


class Pool(nn.Module):
    def __init__(self, name: str, **settings: object) -> None:
        super().__init__()
        self.name, self.settings = name, settings

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = getattr(F, self.name)(x, **self.settings)
        return pooled


@settings(max_examples=60, deadline=None)
@given(
    average=st.booleans(),
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    ceil=st.booleans(),
    counted=st.booleans(),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
)
def test_every_pool_computes_the_same_without_padding_and_ceil_mode(
    average: bool,
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    ceil: bool,
    counted: bool,
    size: tuple[int, int],
) -> None:
    asked: dict[str, object] = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
    module = Pool("avg_pool2d", **asked, count_include_pad=counted) if average else Pool("max_pool2d", **asked)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    program = torch.export.export(module, (x,), strict=False)
    pad_max_pools(program)
    average_plainly(program)
    for name, factor in list(program.graph_module.named_buffers()):
        setattr(program.graph_module, name, factor.double())
    (answer,) = program.graph_module(x)
    torch.testing.assert_close(answer, module(x), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("relu", [True, False])
def test_int8_tflite_of_a_padded_pool(tmp_path: Path, relu: bool) -> None:
    torch.manual_seed(0)
    spec = ModelSpec(
        source="test:stem",
        input_size=(3, 12, 12),
        num_classes=4,
        preprocessing=Preprocessing(mean=(0,) * 3, std=(1,) * 3),
    )
    images = torch.randn(16, 3, 12, 12)
    manifests = export(
        Model(spec, Stem(relu=relu).eval()),
        tmp_path,
        formats=["tflite"],
        int8=True,
        calibration=images,
        reference_input=images[:2],
    )
    assert [m.precision for m in manifests] == ["fp32", "int8"]
    assert manifests[1].inputs[0].scale is not None
    assert 0 < manifests[1].inputs[0].scale < 1
