"""Shapes that peers test their pruners with: convolutions, and what stands between them."""

from __future__ import annotations

import torch
from structure_zoo import conv_bn
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """conv -> what is told apart -> pooled head."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.stem, self.fc = conv_bn(3, 8), nn.Linear(width, 5)
        self.build()

    def build(self) -> None:
        raise NotImplementedError

    def middle(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(F.relu(self.stem(x)))
        return self.fc(x.flatten(2).mean(2) if x.ndim > 2 else x)


class Concat(Net):
    def build(self) -> None:
        self.one, self.two, self.mix = nn.Conv2d(8, 6, 3), nn.Conv2d(8, 10, 3), nn.Conv2d(16, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.mix(torch.cat([self.one(x), F.relu(self.two(x))], 1))


class SplitThree(Net):
    def build(self) -> None:
        self.wide, self.parts = nn.Conv2d(8, 18, 1), nn.ModuleList(nn.Conv2d(6, 4, 3) for _ in range(3))
        self.mix = nn.Conv2d(12, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        wide = self.wide(x)
        parts = torch.split(wide, wide.shape[1] // 3, dim=1)
        return self.mix(torch.cat([conv(part) for conv, part in zip(self.parts, parts, strict=True)], 1))


class ChunkGate(Net):
    def build(self) -> None:
        self.wide, self.out = nn.Conv2d(8, 12, 3), nn.Conv2d(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        value, gate = self.wide(x).chunk(2, 1)
        return self.out(value * gate.sigmoid())


class Depthwise(Net):
    def build(self) -> None:
        self.each, self.grouped = nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 12, 3, groups=4)
        self.out = nn.Conv2d(12, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.grouped(F.relu(self.each(x)))))


class Norms(Net):
    """Group, instance and layer norm one after the other."""

    def build(self) -> None:
        self.one, self.group = nn.Conv2d(8, 12, 1), nn.GroupNorm(3, 12)
        self.two, self.instance = nn.Conv2d(12, 10, 3), nn.InstanceNorm2d(10, affine=True)
        self.three, self.layer, self.out = nn.Conv2d(10, 9, 1), nn.LayerNorm(9), nn.Linear(9, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.instance(self.two(F.relu(self.group(self.one(x))))))
        return self.out(self.layer(self.three(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Transposed(Net):
    """Plain, with stride and output padding, grouped, depthwise; batch norms behind them."""

    def build(self) -> None:
        self.plain, self.norm = nn.ConvTranspose2d(8, 12, 3, stride=2, output_padding=1, dilation=1), nn.BatchNorm2d(12)
        self.grouped, self.norm2 = nn.ConvTranspose2d(12, 16, 2, stride=2, groups=4), nn.BatchNorm2d(16)
        self.each, self.out = nn.ConvTranspose2d(16, 16, 3, groups=16, bias=False), nn.ConvTranspose2d(16, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.plain(F.max_pool2d(x, 2))))
        return self.out(F.relu(self.each(F.relu(self.norm2(self.grouped(x))))))


class TransposedLines(Net):
    """Of sequences and volumes."""

    def build(self) -> None:
        self.line, self.volume = nn.ConvTranspose1d(8, 10, 3, stride=2), nn.ConvTranspose3d(10, 9, (1, 3, 1))
        self.out = nn.Conv3d(9, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.line(F.adaptive_max_pool1d(x.flatten(2), 4)))
        return self.out(F.adaptive_max_pool3d(F.relu(self.volume(x[:, :, None, :, None])), (1, 2, 1)))


class UNet(Net):
    def build(self) -> None:
        self.down1, self.down2, self.floor = conv_bn(8, 10), conv_bn(10, 12), conv_bn(12, 14)
        self.up2, self.level2 = nn.ConvTranspose2d(14, 12, 2, stride=2), conv_bn(24, 10)
        self.up1, self.level1, self.out = nn.ConvTranspose2d(10, 8, 2, stride=2), conv_bn(18, 8), nn.Conv2d(8, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        one = F.relu(self.down1(x))
        two = F.relu(self.down2(F.max_pool2d(one, 2)))
        x = self.up2(F.relu(self.floor(F.max_pool2d(two, 2))))
        x = self.up1(F.relu(self.level2(torch.cat([two, x], 1))))
        return self.out(F.relu(self.level1(torch.cat([x, one], 1))))


class Decoder(Net):
    """Every way up but transposed convolutions."""

    def build(self) -> None:
        self.one, self.two, self.three = nn.Conv2d(8, 12, 3), nn.Conv2d(12, 40, 1), nn.Conv2d(10, 9, 3)
        self.out = nn.Conv1d(9, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.relu(self.one(x)), scale_factor=2, mode="bilinear")
        x = F.interpolate(F.relu(self.two(x)), size=(4, 4), mode="bicubic")
        x = F.relu(self.three(F.pixel_shuffle(x, 2)))
        return self.out(F.interpolate(x.flatten(2), scale_factor=2, mode="linear"))


class Shared(Net):
    """One layer at two places."""

    def build(self) -> None:
        self.again, self.out = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.again(F.relu(self.again(x)))))


class Viewed(Net):
    """Flattened by the batch alone, and by view(-1, n)."""

    def build(self) -> None:
        self.conv, self.hidden, self.out = nn.Conv2d(8, 10, 3), nn.Linear(10 * 9, 12), nn.Linear(12, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = F.adaptive_max_pool2d(self.conv(x), 3)
        x = F.relu(self.hidden(x.view(x.size(0), -1)))
        return self.out(x.unsqueeze(1).unsqueeze(1).squeeze(1).squeeze(1))


class Sliced(Net):
    def build(self) -> None:
        self.wide, self.out = nn.Conv2d(8, 12, 3), nn.Conv2d(12, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        x = self.wide(x)
        half = x.shape[1] // 2
        return self.out(torch.cat([x[:, half:], x[:, :half].relu()], 1))


class Spatial(nn.Module):
    """Where to look, from the largest and the mean channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)], 1)
        return self.conv(both).sigmoid()


class CBAM(Net):
    """Channel attention from mean and maximum by one MLP, then spatial attention."""

    def build(self) -> None:
        self.conv, self.spatial, self.out = conv_bn(8, 12), Spatial(), nn.Conv2d(12, 6, 3)
        self.mlp = nn.Sequential(nn.Conv2d(12, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 1))

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        x = x * (self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))).sigmoid()
        return self.out(x * self.spatial(x))


class Largest(Net):
    """The largest channel at each place, after a ReLU."""

    def build(self) -> None:
        self.conv, self.out = conv_bn(8, 12), nn.Conv2d(12, 6, 3)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return self.out(x * x.max(dim=1, keepdim=True).values + x.min(-1, keepdim=True)[0])


class Sampled(Net):
    """A spatial transformer: where to look comes from the image."""

    def build(self) -> None:
        self.where, self.theta = nn.Conv2d(8, 10, 3), nn.Linear(10, 6)
        self.out = nn.Conv2d(8, 6, 3)

    def middle(self, x: Tensor) -> Tensor:
        theta = self.theta(F.relu(self.where(x)).mean((2, 3))).view(-1, 2, 3)
        return self.out(F.grid_sample(x, F.affine_grid(theta, list(x.shape), False), align_corners=False))


class Stacked(Net):
    """Two paths one above the other, told apart again by their heights."""

    def build(self) -> None:
        self.one, self.two = (nn.Sequential(conv_bn(8, 8, 1), nn.GELU(), conv_bn(8, 8, 1)) for _ in range(2))
        self.both, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        above, _ = self.both(torch.cat([one, two], 2)).split([one.shape[2], two.shape[2]], 2)
        return self.last(above)


class Folded(Net):
    """A linear layer's outputs as the channels of an image, whose size comes from the layer that takes them."""

    def build(self) -> None:
        self.wide = nn.Linear(8, 128)
        self.up, self.up2 = nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ConvTranspose2d(8, 6, 4, 2, 1)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.wide(x.mean((2, 3)))).view(-1, self.up.in_channels, 4, 4)
        return F.relu(self.up2(F.relu(self.up(x))))


class Narrow(Net):
    """A layer of one channel on the way."""

    def build(self) -> None:
        self.wide, self.one, self.out = conv_bn(8, 16), conv_bn(16, 1), conv_bn(1, 6)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.out(F.relu(self.one(F.relu(self.wide(x))))))
