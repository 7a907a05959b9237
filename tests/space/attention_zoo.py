"""Small transformers, one form of attention each, and norms over channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMBED, HEADS = 12, 3


class FusedAttention(nn.Module):
    """As timm's: query, key and value in one layer, and torch's fused operator."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = HEADS, EMBED // HEADS, EMBED
        self.scale, self.fused_attn = self.head_dim**-0.5, True
        self.qkv, self.proj = nn.Linear(EMBED, 3 * EMBED), nn.Linear(EMBED, EMBED)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            x = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, self.attn_dim))


class ComputedAttention(FusedAttention):
    """As many models write it: sizes worked out from the embedding's, which only hold while nothing is pruned."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        x = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class GeneratedAttention(FusedAttention):
    """The sizes stand in a generator expression, over several lines."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            part.reshape(
                b, n, self.num_heads, self.head_dim
            ).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )  # fmt: skip
        x = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, self.attn_dim))


class SeparateAttention(nn.Module):
    """Keys and values of different widths, a bias of relative positions for each head, talking heads."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.scale = HEADS, 0.5
        self.q, self.k, self.v = nn.Linear(EMBED, 18), nn.Linear(EMBED, 18), nn.Linear(EMBED, 24)
        self.talk, self.proj = nn.Linear(HEADS, HEADS), nn.Linear(24, EMBED)
        self.table = nn.Parameter(torch.zeros(9, HEADS))
        places = torch.arange(5)
        self.register_buffer("places", places[:, None] - places[None, :] + 4)

    def heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        q, k, v = self.heads(self.q(x)), self.heads(self.k(x)), self.heads(self.v(x))
        bias = self.table[self.places.view(-1)].view(n, n, -1).permute(2, 0, 1)
        attention = q * self.scale @ k.transpose(-2, -1) + bias
        attention = self.talk(attention.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        return self.proj((attention @ v).transpose(1, 2).flatten(2))


class LinearAttention(SeparateAttention):
    """relu(q) (relu(k)^T v): what is summed over stays zero where it is masked."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.relu(self.heads(self.q(x))), F.relu(self.heads(self.k(x))), self.heads(self.v(x))
        return self.proj((q @ (k.transpose(-2, -1) @ v)).transpose(1, 2).flatten(2))


class KernelAttention(SeparateAttention):
    """elu + 1 is one where the channel is masked: its sum over channels cannot lose any."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.elu(self.heads(self.q(x))) + 1, F.elu(self.heads(self.k(x))) + 1, self.heads(self.v(x))
        return self.proj((q @ (k.transpose(-2, -1) @ v)).transpose(1, 2).flatten(2))


class CosineAttention(SeparateAttention):
    """Queries and keys of length one, written with einsum."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.q(x)), self.heads(self.k(x)), self.heads(self.v(x))
        attention = torch.einsum("bhnd,bhmd->bhnm", F.normalize(q, dim=-1), F.normalize(k, dim=-1)).softmax(-1)
        return self.proj(torch.einsum("bhnm,bhmd->bhnd", attention, v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Patches, a class token, positions, one block, a gated MLP."""

    def __init__(self, attention: type[nn.Module], norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, EMBED, 4, 4)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, EMBED)), nn.Parameter(torch.zeros(1, 5, EMBED))
        self.norm1, self.norm2, self.norm3 = norm(EMBED), norm(EMBED), norm(EMBED)
        self.attn, self.scale = attention(), nn.Parameter(torch.zeros(EMBED))
        self.fc1, self.fc2, self.head = nn.Linear(EMBED, 20), nn.Linear(10, EMBED), nn.Linear(EMBED, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        x = x + self.scale * self.attn(self.norm1(x))
        x = x + self.fc2(F.glu(self.fc1(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


class GroupNorms(nn.Module):
    """Group norm over 4 groups of channels, then over all of them; pixel shuffle and unshuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(4, 12)
        self.conv2, self.norm2 = nn.Conv2d(12, 8, 3, padding=1), nn.GroupNorm(1, 8)
        self.conv3, self.fc = nn.Conv2d(8, 16, 3, padding=1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.silu(self.norm2(self.conv2(x)))
        x = F.pixel_unshuffle(F.pixel_shuffle(self.conv3(x), 2), 2)
        return self.fc(x.mean((2, 3)))


ATTENTION = {
    "fused attention": lambda: Transformer(FusedAttention),
    "computed attention": lambda: Transformer(ComputedAttention),
    "generated attention": lambda: Transformer(GeneratedAttention),
    "separate attention": lambda: Transformer(SeparateAttention),
    "linear attention": lambda: Transformer(LinearAttention),
    "kernel attention": lambda: Transformer(KernelAttention),
    "cosine attention": lambda: Transformer(CosineAttention, nn.RMSNorm),
    "group norms": GroupNorms,
}
