"""A small net for super-resolution: all its work at the low resolution, and a pixel shuffle at the end."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Upscaler(nn.Module):
    """Images (N, 3, H, W) from 0 to 1, to images (N, 3, 2 H, 2 W)."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.tail = nn.Conv2d(width, 3 * 4, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, images: Tensor) -> Tensor:
        detail = self.shuffle(self.tail(self.body(F.relu(self.head(images)))))
        return detail + F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)


def upscaler(width: int = 24, blocks: int = 3) -> Upscaler:
    return Upscaler(width, blocks)
