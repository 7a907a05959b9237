"""A small U-Net: transposed convolutions bring the size back, and what the way down saw is joined on the way up."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def two_convolutions(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Images (N, 3, H, W), H and W multiples of 4, to logits (N, classes, H, W)."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.down1 = two_convolutions(3, width)
        self.down2 = two_convolutions(width, 2 * width)
        self.middle = two_convolutions(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join2 = two_convolutions(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join1 = two_convolutions(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down1(images)
        coarse = self.down2(self.pool(fine))
        x = self.up2(self.middle(self.pool(coarse)))
        x = self.up1(self.join2(torch.cat([x, coarse], 1)))
        return self.head(self.join1(torch.cat([x, fine], 1)))


def unet(classes: int = 4, width: int = 12) -> UNet:
    return UNet(classes, width)
