"""Scores: Taylor against the gate's derivative, magnitude against the definition."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from facts import refused
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.errors import DataError, ModelError
from edgeprune.methods.magnitude import score_magnitude
from edgeprune.methods.taylor import score_taylor
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units


class Net(nn.Module):
    """A convolution with a norm whose channels go on through a depthwise one with its own, one convolution without a
    norm, and a residual stream of two layers. A gate before a ReLU is one behind it; before a tanh it is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.depthwise, self.norm2 = nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3)
        self.conv3, self.conv4 = nn.Conv2d(5, 4, 1), nn.Conv2d(5, 4, 1)
        self.gates = {"norm": torch.ones(6), "bare": torch.ones(5), "stream": torch.ones(4)}
        self.fc, self.drop = nn.Linear(4, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        gate = {name: value.to(x.dtype)[:, None, None] for name, value in self.gates.items()}
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.depthwise(x)) * gate["norm"])
        x = torch.tanh(self.conv2(x)) * gate["bare"]
        x = self.conv3(x) * gate["stream"] + F.relu(self.conv4(x) * gate["stream"])
        return self.fc(self.drop(x.mean((2, 3))))


class Plain(Net):
    """The same network without its gates."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm2(self.depthwise(F.relu(self.norm1(self.conv1(x))))))
        x = torch.tanh(self.conv2(x))
        x = self.conv3(x) + F.relu(self.conv4(x))
        return self.fc(self.drop(x.mean((2, 3))))


@pytest.fixture
def plain() -> Plain:
    torch.manual_seed(0)
    net = Plain().double()
    for norm in (net.norm1, net.norm2):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.data = torch.rand_like(tensor) + 0.5
    return net


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (4,), generator=generator),
        )
        for _ in range(count)
    ]


def test_taylor_is_the_squared_derivative_of_a_gate(plain: Plain) -> None:
    structure = find_structure(plain, batches()[0][0])
    scores = score_taylor(plain, structure, batches())
    gated = Net().double().eval()
    gated.load_state_dict(plain.state_dict())
    expected = {name: np.zeros(len(gate)) for name, gate in gated.gates.items()}
    for images, classes in batches():
        gated.gates = {n: torch.ones(len(g), dtype=torch.float64, requires_grad=True) for n, g in gated.gates.items()}
        loss = F.cross_entropy(gated(images), classes)
        for name, gradient in zip(gated.gates, torch.autograd.grad(loss, list(gated.gates.values())), strict=True):
            expected[name] += gradient.numpy() ** 2 / len(batches())
    assert set(scores) == {"conv1:out", "conv2:out", "conv3:out"}
    for group, gate in (("conv1:out", "norm"), ("conv2:out", "bare"), ("conv3:out", "stream")):
        np.testing.assert_allclose(scores[group], expected[gate], rtol=1e-9)


def test_behind_a_batch_norm_it_is_halp_s(plain: Plain) -> None:
    """|gamma dL/dgamma + beta dL/dbeta| of the norm that stands last before the units are read."""
    structure, (images, classes) = find_structure(plain, batches()[0][0]), batches(1)[0]
    values = score_taylor(plain, structure, [(images, classes)], power=1)["conv1:out"]
    scale, shift = plain.norm2.weight, plain.norm2.bias
    slopes = torch.autograd.grad(F.cross_entropy(plain.eval()(images), classes), (scale, shift))
    np.testing.assert_allclose(values, (scale * slopes[0] + shift * slopes[1]).detach().abs().numpy(), rtol=1e-9)


class Standardized(nn.Conv2d):
    """A reader whose weight is computed from its parameter: not linear in that."""

    def forward(self, x: Tensor) -> Tensor:
        filters = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(filters, None, None, training=True, momentum=0.0, eps=1e-5)
        return F.conv2d(x, weight.reshape_as(self.weight), self.bias)


def test_readers_that_standardize_their_weights_do_not_score() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), Standardized(6, 4, 1), nn.Flatten())
    net = net.append(nn.Linear(4 * 16, 3)).double().eval()
    structure, (images, classes) = find_structure(net, batches()[0][0]), batches(1)[0]
    (group,) = (group for group in structure.groups if group.id == "0:out")
    score = score_taylor(net, structure, [(images, classes)], power=1)[group.id]
    logits = net(images)
    slopes = torch.autograd.grad(F.cross_entropy(logits, classes), list(net[:2].parameters()))
    parts = [
        (p * g).flatten(1).sum(1) if p.ndim > 1 else p * g for p, g in zip(net[:2].parameters(), slopes, strict=True)
    ]
    np.testing.assert_allclose(score, sum(parts).detach().abs().numpy(), rtol=1e-9)  # type: ignore[union-attr]


def test_halp_s_value_is_the_derivative_s_size(plain: Plain) -> None:
    """Of one batch the score is its square; of several it is the mean of sizes, not of squares."""
    structure = find_structure(plain, batches()[0][0])
    each = [score_taylor(plain, structure, [batch]) for batch in batches()]
    values = score_taylor(plain, structure, batches(), power=1)
    for group, value in values.items():
        np.testing.assert_allclose(value, np.mean([np.sqrt(one[group]) for one in each], axis=0), rtol=1e-9)


def test_a_unit_nobody_hears_scores_nothing(plain: Plain) -> None:
    structure = find_structure(plain, batches()[0][0])
    deaf = mask_units(plain, structure, {"conv2:out": [2]})
    score = score_taylor(deaf, structure, batches())["conv2:out"]
    assert score[2] == 0
    assert (np.delete(score, 2) > 0).all()


def test_taylor_leaves_the_module_as_it_was(plain: Plain) -> None:
    plain.train()
    plain.drop.eval()
    plain.conv1.weight.requires_grad_(False)
    plain.norm1.weight.requires_grad_(False)
    before = copy.deepcopy(plain.state_dict())
    with torch.no_grad():
        score_taylor(plain, find_structure(plain, batches()[0][0]), batches())
    assert plain.training
    assert not plain.drop.training
    assert not plain.norm1.weight.requires_grad
    assert all(parameter.grad is None for parameter in plain.parameters())
    assert all(torch.equal(before[name], value) for name, value in plain.state_dict().items())


def test_taylor_refuses_what_it_cannot_score(plain: Plain) -> None:
    structure = find_structure(plain, batches()[0][0])
    images, classes = batches()[0]
    with refused(DataError, "batches"):
        score_taylor(plain, structure, [])
    with refused(DataError, "labels"):
        score_taylor(plain, structure, [(images, classes + 2)])
    with refused(DataError, "labels"):
        score_taylor(plain, structure, [(images, classes[:3])])
    with refused(ModelError, "finite"):
        score_taylor(plain, structure, [(images * float("nan"), classes)])


def test_magnitude_is_the_mean_norm_of_coupled_rows(plain: Plain) -> None:
    structure = find_structure(plain, batches()[0][0])
    scores = score_magnitude(plain, structure)
    rows = [layer.weight.detach().flatten(1).norm(dim=1).numpy() for layer in (plain.conv3, plain.conv4)]
    np.testing.assert_allclose(scores["conv3:out"], np.mean(rows, axis=0))
    rows = [layer.weight.detach().flatten(1).norm(dim=1).numpy() for layer in (plain.conv1, plain.depthwise)]
    np.testing.assert_allclose(scores["conv1:out"], np.mean(rows, axis=0))
    plain.conv2.weight.data[0, 0, 0, 0] = float("inf")
    with pytest.raises(ModelError, match=r"conv2\.weight"):
        score_magnitude(plain, structure)
