"""The shapes that peers test their pruners with, and operators that they meet, written anew as small classifiers."""

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


class LastOfLSTM(Net):
    """What comes last, of hidden and cell state, of both directions."""

    def __init__(self) -> None:
        super().__init__(20)

    def build(self) -> None:
        self.rnn = nn.LSTM(8, 10, batch_first=True, bidirectional=True)

    def middle(self, x: Tensor) -> Tensor:
        _, (h, c) = self.rnn(x.flatten(2).transpose(1, 2))
        return torch.cat([h[0] + h[1], c[0] * c[1]], 1)


class LastOfGRU(Net):
    def build(self) -> None:
        self.rnn, self.out = nn.GRU(8, 7, num_layers=2), nn.Linear(7, 6)

    def middle(self, x: Tensor) -> Tensor:
        _, h = self.rnn(x.flatten(2).permute(2, 0, 1))
        return self.out(h[-1])


class Encoded(Net):
    """A recurrent decoder that starts from what the encoder ended with."""

    def build(self) -> None:
        self.encoder, self.decoder = nn.RNN(8, 9, batch_first=True), nn.RNN(8, 9, batch_first=True, nonlinearity="relu")
        self.out = nn.Linear(9, 6)

    def middle(self, x: Tensor) -> Tensor:
        steps = x.flatten(2).transpose(1, 2)
        _, state = self.encoder(steps)
        return self.out(self.decoder(steps.flip(1), state)[0]).mean(1)


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


class Scaled(Net):
    """Parameters of the model's own: scales, shifts, slopes."""

    def build(self) -> None:
        self.gain, self.shift = nn.Parameter(torch.ones(1, 8, 1, 1)), nn.Parameter(torch.zeros(8, 1, 1))
        self.single, self.slope = nn.Parameter(torch.ones(1)), nn.PReLU(8)
        self.out = nn.Conv2d(8, 6, 3)

    def middle(self, x: Tensor) -> Tensor:
        return self.out(self.slope(x * self.gain + self.shift) * self.single)


class Own(nn.Module):
    """A layer of the user's: x W + b."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel, self.offset = nn.Parameter(torch.zeros(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel + self.offset


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


class Attended(Net):
    """nn.MultiheadAttention as it stands, and the layers beside it."""

    def build(self) -> None:
        self.embed, self.attend = nn.Conv2d(8, 12, 2, 2), nn.MultiheadAttention(12, 3, batch_first=True)
        self.norm, self.up, self.out = nn.LayerNorm(12), nn.Linear(12, 20), nn.Linear(20, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.attend(self.norm(x), self.norm(x), self.norm(x), need_weights=False)[0]
        return self.out(F.gelu(self.up(x))).mean(1)


class Encoder(Net):
    """nn.TransformerEncoder, norm first and last."""

    def build(self) -> None:
        self.embed = nn.Conv2d(8, 12, 2, 2)
        layers = (nn.TransformerEncoderLayer(12, 4, 24, batch_first=True, norm_first=first) for first in (True, False))
        self.layers, self.out = nn.ModuleList(layers), nn.Linear(12, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        for layer in self.layers:
            x = layer(x)
        return self.out(x).mean(1)


class Weighted(Net):
    """Attention by baddbmm; the map is asked for as well."""

    def build(self) -> None:
        self.q, self.k, self.v = (nn.Linear(8, n) for n in (10, 10, 12))
        self.bias, self.out = nn.Parameter(torch.zeros(1, 64)), nn.Linear(12, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = x.flatten(2).mT
        maps = torch.baddbmm(self.bias, self.q(x), self.k(x).mT, alpha=0.3).softmax(-1)
        return self.out(torch.bmm(maps, self.v(x))).mean(1)


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


class Sampled(Net):
    """A spatial transformer: where to look comes from the image."""

    def build(self) -> None:
        self.where, self.theta = nn.Conv2d(8, 10, 3), nn.Linear(10, 6)
        self.out = nn.Conv2d(8, 6, 3)

    def middle(self, x: Tensor) -> Tensor:
        theta = self.theta(F.relu(self.where(x)).mean((2, 3))).view(-1, 2, 3)
        return self.out(F.grid_sample(x, F.affine_grid(theta, list(x.shape), False), align_corners=False))


class TopPlaces(Net):
    """The mean of each channel's largest places; sorted places."""

    def build(self) -> None:
        self.conv, self.out = nn.Conv2d(8, 12, 3), nn.Linear(12, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2)
        return self.out(x.topk(4, -1)[0].mean(-1) + x.sort(-1).values[..., 0])


class Paired(Net):
    """Two readings of one image in a bilinear layer."""

    def build(self) -> None:
        self.one, self.two, self.both = nn.Linear(8, 7), nn.Linear(8, 9), nn.Bilinear(7, 9, 10)
        self.out = nn.Linear(10, 6)

    def middle(self, x: Tensor) -> Tensor:
        mean, most = x.mean((2, 3)), x.amax((2, 3))
        return self.out(F.relu(self.both(F.relu(self.one(mean)), self.two(most))))


class Stepping(Net):
    """Cells that are called step by step."""

    def build(self) -> None:
        self.long, self.gated, self.out = nn.LSTMCell(8, 9), nn.GRUCell(9, 7), nn.Linear(7, 6)

    def middle(self, x: Tensor) -> Tensor:
        h, c, g = x.new_zeros(x.shape[0], 9), x.new_zeros(x.shape[0], 9), x.new_zeros(x.shape[0], 7)
        for step in x.flatten(2).permute(2, 0, 1)[:3]:
            h, c = self.long(step, (h, c))
            g = self.gated(h, g)
        return self.out(g)


class Dotted(Net):
    """einsum with `...`, between two einsums of which one says no output."""

    def build(self) -> None:
        self.one, self.two = nn.Parameter(torch.randn(8, 9)), nn.Parameter(torch.randn(9, 6))

    def middle(self, x: Tensor) -> Tensor:
        x = torch.einsum("...c,cd->...d", x.permute(0, 2, 3, 1), self.one)
        return torch.einsum("bd,dk", torch.einsum("...d,...d->...d", x, x).mean((1, 2)), self.two)


class Tokens(Net):
    """A learned token, handed to a module as a view of the parameter."""

    def build(self) -> None:
        self.token, self.norm = nn.Parameter(torch.randn(1, 1, 8)), nn.LayerNorm(8)
        self.mlp, self.out = nn.Linear(8, 9), nn.Linear(9, 6)

    def middle(self, x: Tensor) -> Tensor:
        token = self.norm(self.token.expand(x.shape[0], -1, -1))
        return self.out(F.relu(self.mlp(torch.cat([token, x.flatten(2).transpose(1, 2)], 1))).mean(1))


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


class Placed(Net):
    """Places looked up in an embedding; a token that is learned."""

    def build(self) -> None:
        self.project, self.places = nn.Conv2d(8, 10, 2, 2), nn.Embedding(17, 10)
        self.token, self.mlp, self.out = nn.Parameter(torch.zeros(1, 1, 10)), nn.Linear(10, 14), nn.Linear(14, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = self.project(x).flatten(2).movedim(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + self.places(torch.arange(x.shape[1], device=x.device))
        return self.out(F.gelu(self.mlp(x)).swapaxes(1, 2)[..., 0])


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


class Narrow(Net):
    """A layer of one channel on the way."""

    def build(self) -> None:
        self.wide, self.one, self.out = conv_bn(8, 16), conv_bn(16, 1), conv_bn(1, 6)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.out(F.relu(self.one(F.relu(self.wide(x))))))


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


PEERS: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (
        *(Concat, SplitThree, ChunkGate, Depthwise, Norms, LastOfLSTM, LastOfGRU, Encoded, Transposed),
        *(TransposedLines, UNet, Decoder, Shared, Viewed, Sliced, Scaled, Customized, Unwrapped, Expanded, Attended),
        *(Encoder, Weighted, CBAM, Largest, ArcFace, Sampled, TopPlaces, Paired, Placed),
        *(Stacked, Folded, WideAndDeep, Narrow, Unused),
    )
}
