"""Small nets with what families of vision models are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

Convert = Callable[..., Path]  # the fixture `to_coreml`


def randomize(module: nn.Module) -> nn.Module:
    """Weights, gains and statistics that hide no branch and no channel; in eval mode."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.weight.data, 0.5, 1.5),
                (layer.bias.data, -0.5, 0.5),
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.5, 1.5),
            ):
                tensor.uniform_(low, high, generator=generator)
        elif isinstance(layer, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                layer.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return module.eval()


class Residual(nn.Module):
    """resnet: stem with max pool, a block, a strided block with a grouped convolution and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16))
        self.a = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.b = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, groups=4, bias=False), nn.BatchNorm2d(32))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        x = (self.a(x) + x).relu()
        x = (self.b(x) + self.shortcut(x)).relu()
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """mobilenet: depthwise with ReLU6, squeeze-and-excitation, hard swish, SiLU, padding in the style of TensorFlow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8))
        self.expand = nn.Sequential(nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 5, 1, 2, groups=32, bias=False), nn.BatchNorm2d(32))
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.project = nn.Sequential(nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.same = nn.Conv2d(8, 8, 4, padding="same", dilation=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.stem(x))
        y = functional.hardswish(self.depthwise(self.expand(x)))
        gate = functional.hardsigmoid(self.excite(self.squeeze(functional.adaptive_avg_pool2d(y, 1)).relu()))
        x = x + self.project(y * gate)
        x = functional.silu(self.same(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Patches(nn.Module):
    """convnext and vit: patches, layer norm over channels, GELU, attention, splitting and slicing."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.linspace(-1, 1, 32).reshape(1, 1, 32))
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).reshape(x.shape[0], -1, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return self.head((x + self.mlp(x))[:, 0])


class Decoder(nn.Module):
    """Everything about resizing and padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 16, 3, padding=(2, 1), dilation=(2, 1)), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)
        self.slope = nn.PReLU(4)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(self.conv(x), 0.2)
        x = functional.pixel_shuffle(functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), 2)
        x = self.slope(functional.pad(x, (1, 2, 3, 1), mode="reflect"))
        x = functional.pad(functional.elu(x), (2, 1, 0, 3), mode="replicate")
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = self.up(torch.tanh(x[:, :, 2:-2:2, 1:]))
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = functional.softplus(functional.max_pool2d(x, 3, 2, ceil_mode=True)) - x.amax((2, 3), keepdim=True)
        return self.head(torch.clamp(x.abs().sqrt(), 0.1, 2.0).sum((2, 3)) / 100.0)


NETS = [Residual, Inverted, Patches, Decoder]
