"""Shapes that peers test their pruners with: recurrent layers, attention, tokens."""

from __future__ import annotations

import torch
from peers_images import Net
from torch import Tensor, nn
from torch.nn import functional as F


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


class Tokens(Net):
    """A learned token, handed to a module as a view of the parameter."""

    def build(self) -> None:
        self.token, self.norm = nn.Parameter(torch.randn(1, 1, 8)), nn.LayerNorm(8)
        self.mlp, self.out = nn.Linear(8, 9), nn.Linear(9, 6)

    def middle(self, x: Tensor) -> Tensor:
        token = self.norm(self.token.expand(x.shape[0], -1, -1))
        return self.out(F.relu(self.mlp(torch.cat([token, x.flatten(2).transpose(1, 2)], 1))).mean(1))


class TopPlaces(Net):
    """The mean of each channel's largest places; sorted places."""

    def build(self) -> None:
        self.conv, self.out = nn.Conv2d(8, 12, 3), nn.Linear(12, 6)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2)
        return self.out(x.topk(4, -1)[0].mean(-1) + x.sort(-1).values[..., 0])
