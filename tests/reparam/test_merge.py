from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.errors import ModelError
from edgeprune.models.timm_import import import_timm
from edgeprune.reparam.merge import merge, prove_merge, verify_merge


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms with statistics, gains and offsets far from 1 and 0, biases too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for one in module.modules():
            if isinstance(one, _BatchNorm):
                if one.running_mean is not None:
                    one.running_mean.normal_()
                    one.running_var.uniform_(0.2, 3.0)
                if one.weight is not None:
                    one.weight.uniform_(-1.5, 1.5)
                    one.bias.normal_()
            elif getattr(one, "bias", None) is not None:
                one.bias.normal_()
    return module.eval()


def norms(module: nn.Module) -> list[str]:
    return [name for name, one in module.named_modules() if isinstance(one, _BatchNorm)]


@given(
    kind=st.sampled_from(["conv1d", "conv2d", "transposed1d", "transposed2d", "linear"]),
    groups=st.sampled_from([1, 2, 3, 6]),
    out=st.sampled_from([6, 12]),
    stride=st.sampled_from([1, 2]),
    padding=st.sampled_from([0, 1]),
    bias=st.booleans(),
    affine=st.booleans(),
    eps=st.sampled_from([1e-5, 1e-3, 0.1]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_the_algebra_is_exact(kind, groups, out, stride, padding, bias, affine, eps, seed) -> None:
    torch.manual_seed(seed)
    if kind == "linear":
        layer, norm, shape = nn.Linear(6, out, bias=bias), nn.BatchNorm1d, (5, 6)
    else:
        layers = {
            "conv1d": nn.Conv1d,
            "conv2d": nn.Conv2d,
            "transposed1d": nn.ConvTranspose1d,
            "transposed2d": nn.ConvTranspose2d,
        }
        layer = layers[kind](6, out, 3, stride, padding, groups=groups, bias=bias)
        norm, shape = (nn.BatchNorm1d, (3, 6, 9)) if kind.endswith("1d") else (nn.BatchNorm2d, (3, 6, 9, 7))
    net = shaken(nn.Sequential(layer, norm(out, eps=eps, affine=affine), nn.ReLU()), seed).double()
    example = torch.randn(shape, dtype=torch.double)
    merged = merge(net, example)
    assert norms(merged) == []
    assert isinstance(merged[1], nn.Identity)
    report = verify_merge(net, merged, example)
    assert report.folded == ("1",)
    assert report.kept == ()
    assert report.max_error < 1e-12
    assert report.sqnr_db > 250


def test_the_model_given_is_not_changed_and_other_types_are_kept() -> None:
    net = shaken(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)))
    net[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net[1].train()
    example = torch.randn(2, 3, 8, 8)
    merged = merge(net, example)
    assert net[1].training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert merged[0].weight.dtype == merged[0].bias.dtype == torch.float32
    assert not merged[0].weight.requires_grad
    assert not any(m.training for m in merged.modules())
    assert 120 < verify_merge(net, merged, example).sqnr_db < 200


class Residual(nn.Module):
    """A block whose names say nothing, whose norms are called out of order of definition."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.BatchNorm2d(4)
        self.a = nn.BatchNorm2d(4)
        self.conv = nn.ModuleDict({"x": nn.Conv2d(3, 4, 1), "y": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.a(self.conv["x"](x)))
        return F.relu(self.z(self.conv["y"](x)) + x)


def test_pairs_are_found_in_the_graph() -> None:
    net = shaken(Residual()).double()
    example = torch.randn(2, 3, 6, 6, dtype=torch.double)
    merged = merge(net, example)
    report = verify_merge(net, merged, example)
    assert report.folded == ("a", "z")
    assert report.max_error < 1e-12


class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.relu(self.norm(x)))


class Fork(nn.Module):
    """The convolution's output is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        return self.norm(x) + x


class Recurrent(nn.Module):
    """The same pair is run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.norm(self.conv(x))))


class SharedConv(nn.Module):
    """One convolution, two norms: folding either would break the other."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.one, self.two = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 3, 1)
        self.twin = nn.Conv2d(3, 3, 1) if tied else self.conv
        self.twin.weight = self.conv.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(self.conv(x)) + self.two(self.twin(x))


class Standardised(nn.Conv2d):
    """A convolution whose weight is computed at each call."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Tokens(nn.Module):
    """A linear layer on (N, L, C) before a norm over L."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 4), nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x))


class Noisy(nn.BatchNorm2d):
    """A batch norm that does something else as well."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("net", "shape", "kept", "reason"),
    [
        (PreActivation(), (2, 3, 6, 6), "norm", "follows the input"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), (2, 3, 6, 6), "2", "relu"),
        (Fork(), (2, 3, 6, 6), "norm", "also feeds something else"),
        (Recurrent(), (2, 3, 6, 6), "norm", "used 2 times"),
        (SharedConv(tied=False), (2, 3, 6, 6), "one", "is shared"),
        (SharedConv(tied=True), (2, 3, 6, 6), "two", "is shared"),
        (nn.Sequential(Standardised(3, 4, 1), nn.BatchNorm2d(4)), (2, 3, 6, 6), "1", "is computed"),
        (Tokens(), (2, 4, 5), "norm", "not what it normalises over"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), Noisy(4)), (2, 3, 6, 6), "1", "a Noisy may do more"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)),
            (2, 3, 6, 6),
            "1",
            "statistics of each batch",
        ),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)), nn.BatchNorm2d(4)),
            (2, 3, 6, 6),
            "1",
            "is computed",
        ),
    ],
)
def test_what_is_not_understood_stays(net: nn.Module, shape: tuple[int, ...], kept: str, reason: str) -> None:
    net = shaken(net).double()
    example = torch.randn(shape, dtype=torch.double)
    merged = merge(net, example)
    report = verify_merge(net, merged, example)
    assert report.folded == ()
    assert reason in dict(report.kept)[kept]
    assert report.max_error == 0.0
    assert report.sqnr_db == math.inf


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "tf_efficientnet_lite0", "regnety_002"])
def test_timm_models(name: str) -> None:
    net = shaken(import_timm().create_model(name, num_classes=5)).double()
    example = torch.randn(2, 3, 64, 64, dtype=torch.double)
    merged = merge(net, example)
    assert norms(merged) == []
    report = verify_merge(net, merged, example)
    assert set(report.folded) == set(norms(net))
    assert report.sqnr_db > 230


def test_an_activation_inside_a_norm_stays() -> None:
    timm = import_timm()
    norm = timm.layers.BatchNormAct2d(4, act_layer=nn.Hardswish)
    net = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), norm)).double()
    example = torch.randn(2, 3, 6, 6, dtype=torch.double)
    merged = merge(net, example)
    assert type(merged[1]) is nn.Hardswish
    assert verify_merge(net, merged, example).max_error < 1e-12
    without = shaken(nn.Sequential(nn.Conv2d(3, 4, 3), timm.layers.BatchNormAct2d(4, apply_act=False))).double()
    assert isinstance(merge(without, example)[1], nn.Identity)


def test_a_difference_is_measured() -> None:
    net = shaken(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    example = torch.randn(2, 3, 6, 6)
    wrong = merge(net, example)
    with torch.no_grad():
        wrong[0].bias += 0.5
    report = verify_merge(net, wrong, example)
    assert report.max_error == pytest.approx(0.5, rel=1e-4)
    assert report.sqnr_db < 30


def test_a_model_without_norms_is_copied() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    merged = merge(net, torch.randn(2, 3, 6, 6))
    assert merged is not net
    assert torch.equal(merged[0].weight, net[0].weight)
    assert merged[0].weight is not net[0].weight


def test_what_cannot_be_traced_or_compared_is_an_error() -> None:
    class Moody(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum().item() > 0 else -x

    with refused(ModelError, "traced"):
        merge(Moody(), torch.randn(1, 3))
    with pytest.raises(ModelError, match="answers"):
        verify_merge(nn.Linear(3, 4), nn.Linear(3, 5), torch.randn(1, 3))


class ReadsItsNorm(nn.Module):
    """Its forward asks the batch norm for its settings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x)).mean((2, 3))
        answer: torch.Tensor = self.head(x.view(-1, self.bn.num_features))
        return answer


def test_a_model_that_reads_its_norms_settings_still_runs_when_they_are_folded() -> None:
    torch.manual_seed(0)
    module, x = ReadsItsNorm().eval(), torch.randn(2, 3, 8, 8)
    merged = merge(module, x[:1])
    assert not any(isinstance(part, nn.BatchNorm2d) for part in merged.modules())
    torch.testing.assert_close(merged(x), module(x), rtol=1e-4, atol=1e-5)


class Casts(nn.Module):
    """Its forward casts: with float64 weights it does not run, or rounds to less on its way."""

    def __init__(self, first: torch.dtype, then: torch.dtype | None) -> None:
        super().__init__()
        self.first, self.then = first, then
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x if self.then else x.to(self.first))
        x = self.bn(x)
        return self.head((x.to(self.first).to(self.then) if self.then else x).mean((2, 3)))


@pytest.mark.parametrize(
    ("first", "then", "kind", "limit"),
    [
        (torch.float32, None, "float32", 1e-3),
        (torch.float16, torch.float32, "float32", 0.1),
        (torch.float32, torch.float64, "float64", 1e-3),
    ],
)
def test_a_model_that_casts_on_its_way_is_proven_within_its_own_rounding(
    first: torch.dtype, then: torch.dtype | None, kind: str, limit: float
) -> None:
    module = shaken(Casts(first, then)).eval()
    if then == torch.float64:
        module.double()
    proof = prove_merge(module, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(then or first))
    assert proof.kind == kind
    assert proof.report.folded == ("bn",)
    assert proof.report.max_error <= proof.limit < limit


def test_what_is_all_in_float64_is_proven_exactly() -> None:
    proof = prove_merge(shaken(ReadsItsNorm()), torch.randn(2, 3, 8, 8))
    assert (proof.kind, proof.limit) == ("float64", 1e-9)
    assert proof.report.max_error < 1e-9


class ReadsItsWeight(nn.Module):
    """Its forward reads a convolution's weight once more, and not to convolve."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.bn(self.conv(x)).mean((2, 3)) + self.conv.weight.mean((1, 2, 3)))


def test_a_weight_that_something_else_reads_stays() -> None:
    report = prove_merge(shaken(ReadsItsWeight()), torch.randn(2, 3, 8, 8)).report
    assert report.folded == ()
    assert "shared" in dict(report.kept)["bn"]
    assert report.max_error == 0
