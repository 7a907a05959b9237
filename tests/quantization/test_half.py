"""Rounding to half precision: the values fit, hardly move, and each filter's outputs stay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.quantization.half import round_to_half, rounded


def moments_of(inputs: torch.Tensor) -> torch.Tensor:
    """Of [1, x] for inputs (samples, groups, k)."""
    x = torch.cat([torch.ones_like(inputs[..., :1]), inputs], 2).double()
    return torch.einsum("sgi,sgj->gij", x, x) / len(x)


def output_error(exact: torch.Tensor, given: torch.Tensor, inputs: torch.Tensor) -> float:
    """Mean square over samples and filters: (groups * filters, k) weights, (samples, groups, k) inputs."""
    off = (given - exact).double().reshape(inputs.shape[1], -1, inputs.shape[2])
    return float(torch.einsum("gok,sgk->sgo", off, inputs.double()).square().mean())


@given(
    filters=st.integers(1, 6),
    inputs=st.integers(1, 8),
    kernel=st.sampled_from([1, 3]),
    depthwise=st.booleans(),
    mean=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_rounded_weights_fit_and_lose_no_more_than_rounding_one_by_one(
    filters: int, inputs: int, kernel: int, depthwise: bool, mean: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups, filters = (inputs, inputs) if depthwise else (1, filters)
    weight = torch.randn(filters, 1 if depthwise else inputs, kernel, kernel, generator=generator)
    seen = torch.randn(500, groups, weight[0].numel(), generator=generator) + mean
    result, _ = rounded(weight, moments_of(seen))
    assert torch.equal(result, result.half().float())
    assert ((result - weight).abs() <= 2**-8 * weight.abs().max()).all()
    assert output_error(weight, result, seen) <= 1.000001 * output_error(weight, weight.half().float(), seen)


def test_an_edge_filter_of_large_inputs_keeps_its_mean() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 1, 3, 3)
    weight -= weight.mean((2, 3), keepdim=True)  # differences: a constant input gives zero
    seen = torch.randn(500, 64, 9) + 1000
    result, _ = rounded(weight, moments_of(seen))
    assert output_error(weight, result, seen) < output_error(weight, weight.half().float(), seen) / 100


def test_the_weights_make_good_what_a_rounded_bias_loses() -> None:
    torch.manual_seed(0)
    weight, bias, seen = torch.randn(8, 32, 1, 1), torch.full((8,), 100.03), torch.rand(500, 1, 32) + 1
    result, coarse = rounded(weight, moments_of(seen), bias)
    assert coarse is not None
    assert torch.equal(coarse, bias.half().float())
    lost = float((bias - coarse).double()[0])
    gained = torch.einsum("ok,k->o", (result - weight).double()[:, :, 0, 0], seen.double().mean((0, 1)))
    assert torch.allclose(gained, torch.full_like(gained, lost), atol=abs(lost) / 20)


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
    weight, bias = rounded(torch.randn(2, 3, dtype=dtype), torch.eye(4)[None], torch.randn(2, dtype=dtype))
    assert bias is not None
    assert weight.dtype == bias.dtype == dtype
