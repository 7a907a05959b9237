"""Where the mask of Taylor's score stands: against a real mask's derivative, for units that are written and read in
several places, multiplied with each other, or contracted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.methods.taylor import score_taylor
from edgeprune.space.find import find_structure

WIDTH, HEADS, DIMS, KEYS = 6, 3, 4, 2


class Gated(nn.Module):
    """A network with a place for masks, which are ones until a test gives others."""

    def __init__(self) -> None:
        super().__init__()
        self.closing: dict[str, Tensor] = {}
        self.fc: nn.Linear

    def logits(self, features: Tensor) -> Tensor:
        answers: Tensor = self.fc(features)
        return answers

    def at(self, name: str, x: Tensor, dim: int = 1) -> Tensor:
        """`x` with the masks of that name, if any, along a dimension."""
        if name not in self.closing:
            return x
        return x * self.closing[name].reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])


class Mixed(Gated):
    """A residual stream with a writer that has a batch norm behind it and one that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(3, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)
        self.fc = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.a(x) + self.norm(self.b(x)))
        return self.logits(self.at("a:out", x).mean((2, 3)))


class Scaled(Gated):
    """Layer scale: two parameters of one branch, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(3, WIDTH, 1)
        self.gamma = nn.Parameter(torch.rand(WIDTH, 1, 1))
        self.fc = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.at("a:out", self.a(x) + self.gamma * self.b(x)).mean((2, 3)))


class Multiplied(Gated):
    """A gated linear unit: two layers write a unit, and it goes with either."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(48, WIDTH), nn.Linear(48, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.logits(self.at("a:out", F.gelu(self.a(x)) * self.b(x)))


class Read(Gated):
    """A squeeze-excitation and a convolution read the channels of a normalized stream."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, WIDTH, 1), nn.BatchNorm2d(WIDTH)
        self.reduce, self.expand = nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(2, WIDTH, 1)
        self.b, self.fc = nn.Conv2d(WIDTH, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.at("a:out", F.hardswish(self.norm(self.a(x))))
        x = x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.logits(self.b(x).mean((2, 3)))


class Buffered(Gated):
    """A weight that is no parameter reads the channels, beside one that is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(WIDTH, 4, 1), nn.Linear(4, 3)
        self.fixed: Tensor
        self.register_buffer("fixed", torch.randn(4, WIDTH, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.at("a:out", torch.tanh(self.a(x)))
        return self.logits((self.b(x) + F.conv2d(x, self.fixed, padding=1)).mean((2, 3)))


class Summed(Gated):
    """All channels are summed up for a map of the image, beside the convolution that reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(WIDTH, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.at("a:out", self.a(x))
        return self.logits((self.b(x) * torch.sigmoid(x.sum(1, keepdim=True))).mean((2, 3)))


class Lengthwise(Gated):
    """Features are divided by their length."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.fc = nn.Linear(48, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(F.normalize(self.at("a:out", self.a(x.flatten(1)))))


class Projected(Gated):
    """A parameter without a layer reads normalized channels, as in CLIP, and a layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, WIDTH, 1), nn.BatchNorm2d(WIDTH)
        self.matrix, self.turned = nn.Parameter(torch.randn(WIDTH, 4)), nn.Parameter(torch.randn(4, WIDTH))
        self.b, self.fc = nn.Linear(WIDTH, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.at("a:out", F.silu(self.norm(self.a(x))).mean((2, 3)))
        return self.logits(self.b(x) + x @ self.matrix + torch.tanh(x @ self.turned.t()))


class Alike(Gated):
    """Every place asks every other how alike they are, by the channels that a convolution reads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, WIDTH, 1), nn.Conv1d(WIDTH, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).flatten(2)
        one = self.at("a:out", x)  # of the product one factor: it is gone once
        return self.logits((self.b(one) @ (one.transpose(1, 2) @ x).softmax(-1)).mean(2))


class Attention(Gated):
    """Self-attention over the columns of an image: what comes after query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = HEADS, DIMS
        self.proj, self.fc = nn.Linear(HEADS * DIMS, 8), nn.Linear(8, 3)

    def answer(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        x = self.at("heads", ((q @ k.transpose(-2, -1)) * 0.5).softmax(-1) @ v).transpose(1, 2)
        return self.logits(self.proj(x.flatten(2)).mean(1))


class Apart(Attention):
    """Query and key have a number of dimensions of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.key_dim = KEYS
        self.q, self.k, self.v = (nn.Linear(12, HEADS * dims) for dims in (KEYS, KEYS, DIMS))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2).transpose(1, 2)
        batch, tokens, _ = x.shape
        q = self.q(x).view(batch, tokens, self.num_heads, self.key_dim).transpose(1, 2)
        k = self.k(x).view(batch, tokens, self.num_heads, self.key_dim).transpose(1, 2)
        v = self.v(x).view(batch, tokens, self.num_heads, self.head_dim).transpose(1, 2)
        return self.answer(self.at("qk", q, 3), k, self.at("v", v, 3))


class Fused(Attention):
    """Query, key and value from one layer, of one number of dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 3 * HEADS * DIMS)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2).transpose(1, 2)
        shape = (*x.shape[:2], 3, self.num_heads, self.head_dim)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        return self.answer(self.at("head_dims", q, 3), k, self.at("head_dims", v, 3))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 4, 4, generator=generator, dtype=torch.float64), torch.arange(8) % 3


@pytest.mark.parametrize(
    "make", [Mixed, Scaled, Multiplied, Read, Buffered, Summed, Lengthwise, Projected, Alike, Apart, Fused]
)
def test_the_score_is_the_derivative_of_a_mask_that_takes_all_of_a_unit(make: Callable[[], Gated]) -> None:
    torch.manual_seed(0)
    net, (images, classes) = make().double().eval(), batch()
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.data = torch.rand_like(tensor) + 0.5
    structure = find_structure(net, images)
    scores = score_taylor(net, structure, [(images, classes)], power=1)
    assert scores
    for group in structure.groups:
        name = group.id if group.id.endswith(":out") else group.id.rpartition(":")[2]
        masks = torch.ones(group.size, dtype=torch.float64, requires_grad=True)
        net.closing = {name: masks}
        (slope,) = torch.autograd.grad(F.cross_entropy(net(images), classes), masks, allow_unused=True)
        net.closing = {}
        if slope is not None:  # a group that this network has no masks for
            np.testing.assert_allclose(scores[group.id], slope.abs().numpy(), rtol=1e-9, err_msg=group.id)
        else:
            assert group.id in {"b:out", "reduce:out", "proj:out"}
