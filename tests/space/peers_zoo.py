"""The shapes that peers test their pruners with, and operators that they meet, written anew as small classifiers: here
layers and products of the model's own, and the table of all."""

from __future__ import annotations

import torch
from peers_images import (
    CBAM,
    ChunkGate,
    Concat,
    Decoder,
    Depthwise,
    Folded,
    Largest,
    Narrow,
    Net,
    Norms,
    Sampled,
    Shared,
    Sliced,
    SplitThree,
    Stacked,
    Transposed,
    TransposedLines,
    UNet,
    Viewed,
)
from peers_sequences import (
    Attended,
    Encoded,
    Encoder,
    LastOfGRU,
    LastOfLSTM,
    Placed,
    Stepping,
    Tokens,
    TopPlaces,
    Weighted,
)
from structure_zoo import conv_bn
from torch import Tensor, nn
from torch.nn import functional as F


class Own(nn.Module):
    """A layer of the user's: x W + b."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel, self.offset = nn.Parameter(torch.zeros(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel + self.offset


class Scaled(Net):
    """Parameters of the model's own: scales, shifts, slopes."""

    def build(self) -> None:
        self.gain, self.shift = nn.Parameter(torch.ones(1, 8, 1, 1)), nn.Parameter(torch.zeros(8, 1, 1))
        self.single, self.slope = nn.Parameter(torch.ones(1)), nn.PReLU(8)
        self.out = nn.Conv2d(8, 6, 3)

    def middle(self, x: Tensor) -> Tensor:
        return self.out(self.slope(x * self.gain + self.shift) * self.single)


class Customized(Net):
    def build(self) -> None:
        self.one, self.two = Own(8, 12), Own(12, 6)

    def middle(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.one(x.mean((2, 3)))))


class Unwrapped(Net):
    """Weights without a layer, in every product."""

    def build(self) -> None:
        self.w1, self.b1 = nn.Parameter(torch.zeros(12, 8)), nn.Parameter(torch.zeros(12))
        self.w2, self.w3 = nn.Parameter(torch.zeros(12, 10)), nn.Parameter(torch.zeros(6, 10))

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(torch.addmm(self.b1, x.mean((2, 3)), self.w1.T))
        x = F.relu(torch.einsum("bi,ij->bj", x, self.w2))
        return torch.mm(x, self.w3.t())


class Expanded(Net):
    """Repeated along what carries no channels, and tiled along the channels."""

    def build(self) -> None:
        self.out = nn.Conv2d(16, 6, 3)

    def middle(self, x: Tensor) -> Tensor:
        pooled = x.amax((2, 3), keepdim=True).expand(-1, -1, 8, 8)
        return self.out((x * pooled).tile(1, 2, 1, 1))


class ArcFace(nn.Module):
    """A neck of flatten, linear and norm, and a head that compares directions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = conv_bn(3, 8), conv_bn(8, 10)
        self.neck, self.norm = nn.Linear(10 * 16, 12, bias=False), nn.BatchNorm1d(12)
        self.centres = nn.Parameter(torch.zeros(5, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.max_pool2d(F.relu(self.stem(x)), 2)))
        x = self.norm(self.neck(torch.flatten(x, 1)))
        return 4 * F.linear(F.normalize(x), F.normalize(self.centres))


class Paired(Net):
    """Two readings of one image in a bilinear layer."""

    def build(self) -> None:
        self.one, self.two, self.both = nn.Linear(8, 7), nn.Linear(8, 9), nn.Bilinear(7, 9, 10)
        self.out = nn.Linear(10, 6)

    def middle(self, x: Tensor) -> Tensor:
        mean, most = x.mean((2, 3)), x.amax((2, 3))
        return self.out(F.relu(self.both(F.relu(self.one(mean)), self.two(most))))


class WideAndDeep(Net):
    """A chain of linear layers with their norms, beside one linear layer."""

    def build(self) -> None:
        self.deep = nn.Sequential(
            *(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2)),
            *(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4)),
        )
        self.wide, self.out = nn.Linear(8, 4), nn.Linear(8, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return self.out(torch.concat([self.wide(x), self.deep(x)], -1))


class Unused(Net):
    """A parameter that nothing reads, and a layer that divides by the length of a row."""

    def build(self) -> None:
        self.fc1, self.fc2, self.out = nn.Linear(8, 12), nn.Linear(12, 12), nn.Linear(12, 6)
        self.scale, self.shift = nn.Parameter(torch.ones(12)), nn.Parameter(torch.zeros(12))
        self.unused = nn.Parameter(torch.ones(10))

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x.mean((2, 3))))
        x = x / x.pow(2).sum(dim=1, keepdim=True).sqrt()
        return self.out(F.relu(self.fc2(x * self.scale + self.shift)))


class Dotted(Net):
    """einsum with `...`, between two einsums of which one says no output."""

    def build(self) -> None:
        self.one, self.two = nn.Parameter(torch.randn(8, 9)), nn.Parameter(torch.randn(9, 6))

    def middle(self, x: Tensor) -> Tensor:
        x = torch.einsum("...c,cd->...d", x.permute(0, 2, 3, 1), self.one)
        return torch.einsum("bd,dk", torch.einsum("...d,...d->...d", x, x).mean((1, 2)), self.two)


class OneByOne(Net):
    """Convolutions of single images, in a loop over the batch."""

    def build(self) -> None:
        self.conv, self.out = nn.Conv2d(8, 9, 3), nn.Linear(9, 6)

    def middle(self, x: Tensor) -> Tensor:
        return self.out(torch.stack([self.conv(image) for image in x]).mean((2, 3)))


class Gram(Net):
    """Bilinear pooling: products of all channels with all, beside the channels."""

    def build(self) -> None:
        self.out = nn.Linear(8 * 8 + 8, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return self.out(torch.cat([torch.bmm(x, x.transpose(1, 2)).flatten(1) / 64, x.mean(2)], 1))


ODD: dict[str, type[nn.Module]] = {cls.__name__: cls for cls in (Stepping, Dotted, Tokens, OneByOne, Gram)}

PEERS: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        *(Concat, SplitThree, ChunkGate, Depthwise, Norms, LastOfLSTM, LastOfGRU, Encoded, Transposed),
        *(TransposedLines, UNet, Decoder, Shared, Viewed, Sliced, Scaled, Customized, Unwrapped, Expanded, Attended),
        *(Encoder, Weighted, CBAM, Largest, ArcFace, Sampled, TopPlaces, Paired, Placed),
        *(Stacked, Folded, WideAndDeep, Narrow, Unused),
    )
}
