"""Small models that hold one structural difficulty each, and random tensors to fill them with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.models.timm_import import import_timm


def randomized(module: nn.Module, seed: int = 0) -> nn.Module:
    """Float64, eval mode, every bias, scale and statistic non-trivial."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if tensor.ndim > 1:
            fan_in = tensor[0].numel()
            tensor.data = torch.randn(tensor.shape, generator=generator) / fan_in**0.5
        elif "var" in name or name.endswith("weight"):
            tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
        else:
            tensor.data = torch.randn(tensor.shape, generator=generator) * 0.5
    return module.double().eval()


def image(size: int = 8, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=True, **options), nn.BatchNorm2d(outputs)
    )


class Plain(nn.Module):
    """Convolutions, a pool, flatten of (C, H, W) and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(3, 6), conv_bn(6, 8)
        self.fc1, self.norm, self.fc2 = nn.Linear(8 * 4 * 4, 10), nn.BatchNorm1d(10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.hardswish(self.conv2(x)).flatten(1)
        return self.fc2(torch.sigmoid(self.norm(self.fc1(x))))


class Residual(nn.Module):
    """A residual block; projection shortcut where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_bn(inputs, outputs, stride=stride), conv_bn(outputs, outputs)
        self.shortcut = conv_bn(inputs, outputs, 1, stride=stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6)
        self.blocks = nn.Sequential(Residual(6, 6, 1), Residual(6, 8, 2), Residual(8, 8, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


class OptionA(nn.Module):
    """CIFAR ResNet: the shortcut takes every other pixel and pads the channels with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv_bn(3, 4), conv_bn(4, 8, stride=2), conv_bn(8, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + short)
        return self.fc(F.avg_pool2d(x, 4).view(x.size(0), -1))


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 4)
        self.expand, self.depthwise, self.project = conv_bn(4, 10, 1), conv_bn(10, 10, groups=10), conv_bn(10, 4, 1)
        self.widen = conv_bn(4, 8, groups=4)  # channel multiplier 2
        self.head, self.fc = conv_bn(8, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = x + self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        x = F.relu6(self.head(F.relu6(self.widen(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.reduce, self.expand = conv_bn(3, 9), nn.Conv2d(9, 4, 1), nn.Conv2d(4, 9, 1)
        self.project, self.fc = conv_bn(9, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        gate = F.hardsigmoid(self.expand(F.silu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.fc(self.project(x * gate).amax((2, 3)))


class Dense(nn.Module):
    """Concatenation with batch norms that stand before their convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(9), nn.Conv2d(9, 4, 3, padding=1)
        self.norm3, self.fc = nn.BatchNorm2d(13), nn.Linear(13 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.stem(x)
        b = self.conv1(F.relu(self.norm1(a)))
        c = self.conv2(F.relu(self.norm2(torch.cat([a, b], 1))))
        x = F.adaptive_avg_pool2d(F.relu(self.norm3(torch.cat([b, a, c], 1))), 2)
        return self.fc(torch.flatten(x, 1))


class Parts(nn.Module):
    """chunk, split and slices whose sizes follow the width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.left, self.right = conv_bn(3, 8), conv_bn(4, 6), conv_bn(4, 6)
        self.scale = nn.Parameter(torch.ones(1, 12, 1, 1))
        self.mix, self.slope, self.fc = conv_bn(6, 6, 1), nn.PReLU(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.conv(x).chunk(2, dim=1)
        x = torch.cat([self.right(b), self.left(a)], 1) * self.scale
        half = x.shape[1] // 2
        a, b = torch.split(x, half, dim=1)
        x = self.slope(self.mix(a * torch.sigmoid(b) + x[:, half:]))
        return self.fc(x.mean((2, 3)))


class Grouped(nn.Module):
    """A grouped convolution between pointwise ones, as in RegNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = conv_bn(3, 12, 1), conv_bn(12, 8, groups=4), conv_bn(8, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))).mean((2, 3)))


class Tokens(nn.Module):
    """Patches as tokens, channels last: LayerNorm freezes the stream, the MLP's hidden units can go."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Conv2d(3, 6, 4, 4), nn.Parameter(torch.zeros(1, 4, 6))
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        x = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        return self.head(x.mean(1))


class Pyramid(nn.Module):
    """A detector's neck: levels added top-down, one head for both, classes and boxes of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1, self.stage2 = conv_bn(3, 6), conv_bn(6, 8, stride=2)
        self.lateral1, self.lateral2 = nn.Conv2d(6, 10, 1), nn.Conv2d(8, 10, 1)
        self.tower, self.classes, self.boxes = conv_bn(10, 10), nn.Conv2d(10, 3, 1), nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        fine = F.relu(self.stage1(x))
        coarse = self.stage2(fine)
        top = self.lateral2(F.relu(coarse))
        levels = [self.lateral1(fine) + F.interpolate(top, size=fine.shape[-2:], mode="nearest"), top]
        towers = [F.relu(self.tower(level)) for level in levels]
        return {"classes": [self.classes(t) for t in towers], "boxes": [self.boxes(t) for t in towers]}


class Recurrent(nn.Module):
    """Rows of an image as steps, both ways, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 6, (1, 8)), nn.LayerNorm(6)
        self.rnn = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.rnn(self.norm(self.embed(x).flatten(2).transpose(1, 2)))
        return self.head(steps.mean(1))


class Standardized(nn.Module):
    """Convolutions with scaled weight standardization, as in NFNets: plain, grouped, depthwise."""

    def __init__(self) -> None:
        super().__init__()
        conv = import_timm().layers.std_conv.ScaledStdConv2d
        self.conv1, self.conv2 = conv(3, 8, 3), conv(8, 12, 3, groups=4)
        self.conv3, self.conv4 = conv(12, 12, 3, groups=12), conv(12, 6, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return self.fc(F.gelu(self.conv4(x)).mean((2, 3)))


class ResponseNorm(nn.Module):
    """A norm over channels written by hand, and a pointwise layer over tokens, whose channels it leaves alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.fc1, self.fc2 = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 12), nn.Linear(12, 6)
        self.norm = import_timm().layers.grn.GlobalResponseNorm(12)
        self.mix, self.head = nn.Conv1d(4, 1, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        x = x + self.fc2(self.norm(F.gelu(self.fc1(x))))
        return self.head(self.mix(x.flatten(1, 2)).squeeze(1))


ZOO: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        Plain,
        ResNet,
        OptionA,
        InvertedResidual,
        SqueezeExcite,
        Dense,
        Parts,
        Grouped,
        Tokens,
        Recurrent,
        ResponseNorm,
        Standardized,
    )
}
