"""A small network with something of everything, and images for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeprune.models.spec import Model, ModelSpec, Preprocessing


class Tiny(nn.Module):
    """Convolution, depthwise, batch norm, ReLU, a residual, pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.left = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.right(self.left(x)))
        return self.head(self.drop(self.pool(x).flatten(1)))


def tiny_model() -> Model:
    """Random weights and batch statistics, so that nothing folds away."""
    torch.manual_seed(0)
    module = Tiny()
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean, 0, 0.3)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
    spec = ModelSpec(
        source="tests:tiny",
        input_size=(3, 16, 16),
        num_classes=5,
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3),
        labels=("a", "b", "c", "d", "e"),
    )
    return Model(spec, module.eval())


def images(count: int, seed: int) -> Tensor:
    """Smooth images: noise at a quarter of the resolution, enlarged."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")
