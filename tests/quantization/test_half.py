"""Rounding to half precision: the values fit, hardly move, and each filter's mean output stays."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.quantization.half import NUDGE, round_to_half, rounded


@given(
    filters=st.integers(1, 6),
    inputs=st.integers(1, 8),
    kernel=st.sampled_from([1, 3, 5]),
    depthwise=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_rounded_weights_fit_and_hardly_move(
    filters: int, inputs: int, kernel: int, depthwise: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups, filters = (inputs, inputs) if depthwise else (1, filters)
    weight = torch.randn(filters, 1 if depthwise else inputs, kernel, kernel, generator=generator)
    means = torch.randn(inputs, generator=generator)
    result = rounded(weight, means, groups)
    assert torch.equal(result, result.half().float())
    assert ((result - weight).abs() <= weight.abs() * (NUDGE + 2**-11) + 1e-7).all()


def test_an_edge_filter_of_large_inputs_keeps_its_mean() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 1, 3, 3)
    weight -= weight.mean((2, 3), keepdim=True)  # differences: a constant input gives zero
    means = torch.full((64,), 1000.0)
    plain = (weight.half().float().double().sum((1, 2, 3)) * 1000).abs().max()
    kept = (rounded(weight, means, groups=64).double().sum((1, 2, 3)) * 1000).abs().max()
    assert kept < plain / 10


def test_the_weights_make_good_what_a_rounded_bias_loses() -> None:
    torch.manual_seed(0)
    weight, means, carried = torch.randn(8, 32, 1, 1), torch.rand(32) + 1, torch.full((8,), 0.004)
    result = rounded(weight, means, carried=carried)
    gained = ((result - weight).double()[:, :, 0, 0] * means.double()).sum(1)
    assert torch.allclose(gained, carried.double(), atol=2e-4)


class Net(nn.Module):
    """An edge filter over a large constant part, then a linear layer: what MobileNet's first layers are like."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Conv2d(16, 16, 3, groups=16)
        self.mix, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8, 4)
        with torch.no_grad():
            self.edges.weight -= self.edges.weight.mean((2, 3), keepdim=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.mix(self.edges(x + 50))).mean((2, 3)))


def test_a_program_loses_less_than_by_plain_rounding() -> None:
    torch.manual_seed(0)
    module, images = Net().eval(), torch.randn(8, 16, 12, 12)
    program = torch.export.export(module, (images[:1],))
    with torch.no_grad():
        expected = module(images)
        round_to_half(program, images)
        assert all(torch.equal(p, p.half().float()) for p in program.state_dict.values())
        given = torch.cat([program.module()(image[None]) for image in images])
        plain = Net()
        plain.load_state_dict({name: p.half().float() for name, p in module.state_dict().items()})
        naive = plain(images)
    kept, lost = (expected - given).abs().max(), (expected - naive).abs().max()
    assert kept < lost / 3, f"{kept:.2g} against {lost:.2g}"


def test_a_layer_used_twice_and_one_without_bias_are_rounded_too() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(torch.relu(self.conv(x)))

    images = torch.randn(3, 4, 8, 8)
    program = torch.export.export(Twice().eval(), (images[:1],))
    round_to_half(program, images)
    weight = program.state_dict["conv.weight"]
    assert torch.equal(weight, weight.half().float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_stays(dtype: torch.dtype) -> None:
    assert rounded(torch.randn(2, 3, dtype=dtype), torch.ones(3)).dtype == dtype
