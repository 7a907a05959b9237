"""A weight scaled over its channels computes what the scaled images do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeprune.reparam.scaling import over_inputs, over_outputs


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d])
@given(groups=st.sampled_from([1, 2, 3, 6]), padding=st.sampled_from([0, 1]), seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_over_inputs_and_outputs(kind: type[nn.Conv2d], groups: int, padding: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = kind(6, 12, 3, padding=padding, groups=groups, bias=False).double()
    x = torch.randn(2, 6, *[7] * (layer.weight.ndim - 2), dtype=torch.float64)
    before, after = (torch.randn(width, *[1] * (x.ndim - 2), dtype=torch.float64) for width in (6, 12))
    expected = layer(before * x), after * layer(x)
    weight = layer.weight.detach().clone()
    for scaled, wanted in ((over_inputs, expected[0]), (over_outputs, expected[1])):
        layer.weight.data = weight.clone()
        layer.weight.data = scaled(layer, (before if scaled is over_inputs else after).flatten()).detach()
        torch.testing.assert_close(layer(x), wanted, rtol=0, atol=1e-10)
