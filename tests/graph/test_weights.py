"""Which weights a model has, and where it uses them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from edgeprune.graph.weights import Weight, find_weights
from edgeprune.models.timm_import import import_timm

IMAGE = torch.zeros(1, 3, 8, 8)


class Own(nn.Module):
    """A convolution of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(6, 4, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, padding=2)


class Shared(nn.Module):
    """One layer called twice, and another with the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.other.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.first(F.avg_pool2d(self.first(x), 2)))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend, self.head = nn.MultiheadAttention(3, 1, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.head(self.attend(tokens, tokens, tokens)[0])


def test_weights_with_their_uses() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2, 1), Own(), nn.Conv2d(6, 6, 3, 1, 1, groups=6), nn.Conv2d(6, 2, 1)),
        *(nn.Flatten(), nn.Linear(32, 5)),
    )
    found = find_weights(net, IMAGE)
    assert found == {
        "0.weight": Weight("0.weight", (4, 3, 3, 3), 16),
        "1.kernel": Weight("1.kernel", (6, 4, 5, 5), 16),
        "2.weight": Weight("2.weight", (6, 1, 3, 3), 16, groups=6),
        "3.weight": Weight("3.weight", (2, 6, 1, 1), 16, dense_1x1=True),
        "5.weight": Weight("5.weight", (5, 32), 1),
    }
    assert [weight.kind for weight in found.values()] == ["3x3", "5x5", "depthwise", "1x1", "linear"]
    assert found["1.kernel"].macs == 16 * 6 * 4 * 5 * 5


def test_a_shared_weight_is_one_with_all_its_positions() -> None:
    assert find_weights(Shared(), IMAGE) == {
        "first.weight": Weight("first.weight", (3, 3, 1, 1), 64 + 16 + 16, dense_1x1=True)
    }


@pytest.mark.parametrize("options", [{"stride": 2}, {"padding": 1}, {"padding": (0, 1)}, {"groups": 3}], ids=str)
def test_a_1x1_convolution_that_is_more_than_a_product(options: dict[str, Any]) -> None:
    (weight,) = find_weights(nn.Conv2d(3, 6, 1, **options), IMAGE).values()
    assert not weight.dense_1x1


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding": "valid"}, {"dilation": 2}], ids=str)
def test_what_adds_nothing_to_a_1x1_convolution(options: dict[str, Any]) -> None:
    (weight,) = find_weights(nn.Conv2d(3, 6, 1, **options), IMAGE).values()
    assert weight.dense_1x1


def test_weights_that_are_computed_anew_are_none() -> None:
    """Zeros in them would be none in what runs: a standardized weight is shifted by its mean."""
    import_timm()
    from timm.layers import StdConv2d

    net = nn.Sequential(StdConv2d(3, 4, 1), parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 5, 1))
    assert list(find_weights(net, IMAGE)) == ["2.weight"]


def test_attention_in_one_piece_has_its_linear_layers() -> None:
    found = find_weights(Attending(), IMAGE)
    assert {name: weight.positions for name, weight in found.items()} == {
        "attend.in_proj_weight": 64,
        "attend.out_proj.weight": 64,
        "head.weight": 64,
    }
