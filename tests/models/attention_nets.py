"""Factories of small models that attend with torch's nn.MultiheadAttention, one way each."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIM, HEADS, CLASSES = 12, 2, 5


class Tokens(nn.Module):
    """Patches become tokens, which attend in some way (`mix`); their mean is classified."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, DIM, 4, 4), nn.Linear(DIM, CLASSES)
        self.build()

    def build(self) -> None:
        self.attend = nn.MultiheadAttention(DIM, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(x + self.mix(x)).mean(1)

    def mix(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x)[0]


class Unweighted(Tokens):
    def mix(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


class Weights(Tokens):
    """The maps are read: their mean over the heads."""

    def mix(self, x: Tensor) -> Tensor:
        x, maps = self.attend(x, x, x)
        return x * maps.amax(-1, keepdim=True)


class TokensFirst(Tokens):
    def build(self) -> None:
        self.attend = nn.MultiheadAttention(DIM, HEADS, bias=False)

    def mix(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return self.attend(x, x, x)[0].transpose(0, 1)


class Masked(Tokens):
    """Each token sees itself and those before it; the last is padding."""

    def build(self) -> None:
        super().build()
        self.register_buffer("later", torch.ones(4, 4).triu(1).bool())
        self.register_buffer("padding", torch.tensor([[False, False, False, True]]))

    def mix(self, x: Tensor) -> Tensor:
        padding = self.padding.expand(x.shape[0], -1)
        return self.attend(x, x, x, key_padding_mask=padding, attn_mask=self.later, need_weights=False)[0]


class Causal(Tokens):
    def build(self) -> None:
        super().build()
        self.register_buffer("later", nn.Transformer.generate_square_subsequent_mask(4), persistent=False)

    def mix(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, attn_mask=self.later, is_causal=True, need_weights=False)[0]


class Crossed(Tokens):
    """Queries that are learned, keys and values of other widths."""

    def build(self) -> None:
        self.attend = nn.MultiheadAttention(DIM, HEADS, kdim=10, vdim=14, batch_first=True)
        self.queries, self.keys, self.values = nn.Linear(DIM, DIM), nn.Linear(DIM, 10), nn.Linear(DIM, 14)

    def mix(self, x: Tensor) -> Tensor:
        return self.attend(self.queries(x), self.keys(x), self.values(x), need_weights=False)[0]


class Encoder(Tokens):
    """nn.TransformerEncoder: its fast path is taken as it is made."""

    def build(self) -> None:
        layer = nn.TransformerEncoderLayer(DIM, HEADS, 20, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def mix(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class Padded(Tokens):
    """The last token is padding, which torch's encoder answers with zeros in eval mode alone; nobody reads it."""

    def build(self) -> None:
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(DIM, HEADS, 20, batch_first=True), 2)
        self.register_buffer("padding", torch.tensor([[False, False, False, True]]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.encoder(x, src_key_padding_mask=self.padding.expand(x.shape[0], -1))
        return self.head(x[:, :3]).mean(1)


class PaddingRead(Padded):
    """It is read: eval mode answers something else than training mode."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(x, src_key_padding_mask=self.padding.expand(x.shape[0], -1))).mean(1)


class Decoder(Tokens):
    """nn.TransformerDecoder with learned queries."""

    def build(self) -> None:
        layer = nn.TransformerDecoderLayer(DIM, HEADS, 20, batch_first=True, norm_first=True)
        self.decoder, self.queries = nn.TransformerDecoder(layer, 1), nn.Parameter(torch.zeros(1, 4, DIM))

    def mix(self, x: Tensor) -> Tensor:
        return self.decoder(self.queries + x, x)


class Reused(Tokens):
    """One layer, held in two places."""

    def build(self) -> None:
        super().build()
        self.again = nn.ModuleList([self.attend])

    def mix(self, x: Tensor) -> Tensor:
        return self.again[0](self.attend(x, x, x)[0], x, x)[0]


class Residual(Tokens):
    """Added to what it attends to."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        more, _ = self.attend(x, x, x)
        return self.head(x + more).mean(1)


class Own(nn.MultiheadAttention):
    """A user's own kind."""


class Subclassed(Tokens):
    def build(self) -> None:
        self.attend = Own(DIM, HEADS, batch_first=True)


class Biased(Tokens):
    def build(self) -> None:
        self.attend = nn.MultiheadAttention(DIM, HEADS, batch_first=True, add_bias_kv=True)


class ZeroAttended(Tokens):
    def build(self) -> None:
        self.attend = nn.MultiheadAttention(DIM, HEADS, batch_first=True, add_zero_attn=True)


class Called(Tokens):
    """torch's function, called with a module's weights."""

    def mix(self, x: Tensor) -> Tensor:
        own, x = self.attend, x.transpose(0, 1)
        rest = (None, None, False, 0.0, own.out_proj.weight, own.out_proj.bias)
        x, _ = F.multi_head_attention_forward(x, x, x, DIM, HEADS, own.in_proj_weight, own.in_proj_bias, *rest)
        return x.transpose(0, 1)


class Hooked(Tokens):
    def build(self) -> None:
        super().build()
        self.attend.register_forward_hook(lambda _, __, out: (2 * out[0], out[1]))


class Tied(Tokens):
    """Two layers with one weight."""

    def build(self) -> None:
        super().build()
        self.other = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
        self.other.in_proj_weight = self.attend.in_proj_weight

    def mix(self, x: Tensor) -> Tensor:
        return self.other(self.attend(x, x, x)[0], x, x)[0]


class OneMemory(Tied):
    """Two parameters in the same memory."""

    def build(self) -> None:
        super().build()
        self.other.in_proj_weight = nn.Parameter(self.attend.in_proj_weight.data)


class Mixed(Tokens):
    """One whose weights are read by the code, and one whose are not."""

    def build(self) -> None:
        super().build()
        self.other = nn.MultiheadAttention(DIM, HEADS, batch_first=True)

    def mix(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x)[0] + self.other(x, x, x)[0] * self.other.in_proj_weight.mean()


class Hidden(Tokens):
    """What the attention answers is multiplied with zero, as in a new model; its weights are read beside that."""

    def build(self) -> None:
        super().build()
        self.gain = nn.Parameter(torch.zeros(1))

    def mix(self, x: Tensor) -> Tensor:
        more = 0 if self.attend.in_proj_bias is None else 1
        return self.gain * (self.attend(x, x, x)[0] + more)
