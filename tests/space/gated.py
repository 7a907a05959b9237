"""Two convolutions with a wide squeeze-excitation between them: most of its parameters are the gate's."""

from __future__ import annotations

import torch
from torch import nn


class Squeeze(nn.Module):
    def __init__(self, width: int, middle: int) -> None:
        super().__init__()
        self.reduce, self.act, self.expand = nn.Conv2d(width, middle, 1), nn.ReLU(), nn.Conv2d(middle, width, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Squeeze(16, 128),
        nn.Conv2d(16, 16, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def deep() -> nn.Module:
    """The squeeze-excitation comes after two convolutions."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Squeeze(16, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
