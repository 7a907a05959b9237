"""Factories as users bring them: what they make is not always what a copy of it is."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.bn(self.conv1(x)))))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.features(x).mean((2, 3)))


plain = Net


class Permuted(Net):
    def __init__(self, order: Any) -> None:
        super().__init__()
        self.order = order

    def features(self, x: Tensor) -> Tensor:
        return super().features(x)[:, torch.as_tensor(np.array(self.order))].cumsum(1)


def numpy_order() -> nn.Module:
    return Permuted(np.random.permutation(8))


def python_order() -> nn.Module:
    order = list(range(8))
    random.shuffle(order)
    return Permuted(order)


def torch_order() -> nn.Module:
    return Permuted(torch.randperm(8))


def unseeded_order() -> nn.Module:
    return Permuted(np.random.default_rng().permutation(8))


def system_order() -> nn.Module:
    return Permuted(tuple(random.SystemRandom().sample(range(8), 8)))


def seeded_order() -> nn.Module:
    return Permuted(np.random.default_rng(7).permutation(8))


def buffer_order() -> nn.Module:
    net = Permuted(None)
    del net.order
    net.register_buffer("order", torch.randperm(8))
    return net


def hidden_buffer() -> nn.Module:
    net = Net()
    net.register_buffer("noise", torch.randn(8), persistent=False)
    return net


def timed() -> nn.Module:
    net = Net()
    net.bn.eps = time.time_ns() // 1000 % 997 / 100
    return net


def random_gain() -> nn.Module:
    net, gain = Net(), random.random() + 1
    net.conv2.register_forward_hook(lambda part, given, found: found * gain)
    return net


def random_width() -> nn.Module:
    net = Net()
    net.fc = nn.Sequential(nn.Linear(8, (width := random.randint(4, 400))), nn.Linear(width, 4))
    return net


def hook_on_original() -> nn.Module:
    net = Net()
    net.fc.register_forward_hook(lambda part, given, found: found + net.fc.weight.sum())
    return net


def patched_forward() -> nn.Module:
    net = Net()
    own = net.features
    net.features = lambda x: own(x) * 2  # type: ignore[method-assign]
    return net


class InPlace(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(2).sub_(1))


class InPlaceInTraining(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.mul_(2) if self.training else x * 2)


class Noisy(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x + 0.1 * torch.randn_like(x))


class Dropping(Net):
    def features(self, x: Tensor) -> Tensor:
        return F.dropout(super().features(x), 0.5)


class NumpyNoise(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * (1 + np.random.rand())


class Counting(Net):
    calls = 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return super().forward(x) * (1 + 0.1 * self.calls)


class Drifting(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        self.mean = 0.9 * self.mean + 0.1 * x.mean()
        return super().forward(x)


class Mixing(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x - x.mean(0))


def of_the_batch() -> nn.Module:
    net = Net()
    net.bn = nn.BatchNorm2d(8, track_running_stats=False)
    return net


class Auxiliary(Net):
    kind: Any = tuple

    def forward(self, x: Tensor) -> Any:
        answer = super().forward(x)
        return (answer, answer) if self.training else answer


class AuxiliaryDict(Net):
    def forward(self, x: Tensor) -> Any:
        answer = super().forward(x)
        return {"out": answer, "aux": answer} if self.training else answer


class Keeping(Net):
    def features(self, x: Tensor) -> Tensor:
        self.kept = {"last": [super().features(x)]}
        return self.kept["last"][0]


class KeepingDetached(Net):
    def features(self, x: Tensor) -> Tensor:
        found = super().features(x)
        self.kept = found.detach()
        return found


class WithoutGradients(Net):
    def features(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().features(x)


class NothingTrains(Net):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


def frozen_backbone() -> nn.Module:
    net = Net()
    net.conv1.requires_grad_(False)
    return net


class BreaksInTraining(Net):
    def forward(self, x: Tensor) -> Any:
        if self.training:
            raise ArithmeticError("not here")
        return super().forward(x)


class ExitsInForward(Net):
    def forward(self, x: Tensor) -> Any:
        sys.exit(0)


def exits() -> nn.Module:
    sys.exit(0)


def raises_base() -> nn.Module:
    raise BaseException("out")


class Uncopyable(Net):
    def __init__(self) -> None:
        super().__init__()
        self.stream = sys.stdout.buffer if hasattr(sys.stdout, "buffer") else open(__file__)  # noqa: SIM115, PTH123
        self.generator = (number for number in range(3))


def scripted() -> nn.Module:
    return torch.jit.script(Net())


def traced_part() -> nn.Module:
    net = Net()
    net.fc = torch.jit.trace(net.fc, torch.zeros(1, 8))
    return net


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Net()


# These work


def compiled() -> nn.Module:
    return torch.compile(Net())  # type: ignore[return-value]


def compiled_in_place() -> nn.Module:
    net = Net()
    net.compile()
    net.conv2 = torch.compile(net.conv2)  # type: ignore[assignment]
    return net


def parallel() -> nn.Module:
    return nn.DataParallel(Net())


def half() -> nn.Module:
    return Net().half()


def double() -> nn.Module:
    return Net().double()


def mixed() -> nn.Module:
    net = Net()
    net.fc.bfloat16()
    return net


class Remembering(Net):
    """A recurrent layer lists its parameters once more."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.GRU(8, 8, batch_first=True, bidirectional=True), nn.Linear(16, 4)
        self.same = [self.last.weight]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        return self.last(self.rnn(x)[0].mean(1))


class Adjacent(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.eye(4).to_sparse())

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(self.edges, super().forward(x).T).T


def quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear})


class Extra(Net):
    def get_extra_state(self) -> Any:
        return {"version": 2}

    def set_extra_state(self, state: Any) -> None:
        del state


class OfOnePixel(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[:, :, None, None]


class Squeezing(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).squeeze()


class AnsweringATuple(Net):
    def forward(self, x: Tensor) -> Any:
        return (super().forward(x),)


class OfTwoInputs(Net):
    def forward(self, x: Tensor, y: Tensor) -> Any:
        return super().forward(x + y)


def returning_nothing() -> None:
    Net()


def returning_a_tuple() -> tuple[nn.Module, int]:
    return Net(), 4


def renaming_its_state() -> nn.Module:
    net = Net()
    net._register_state_dict_hook(lambda _, state, *__: {f"net.{name}": value for name, value in state.items()})
    return net


def setting_everything() -> nn.Module:
    """It sets what holds for the whole process, and leaves it so. It is a script, too."""
    net = Net()
    argparse.ArgumentParser().parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(torch.get_num_threads() + 1)
    warnings.simplefilter("error")
    os.chdir("/")
    sys.path[:] = ["/nowhere"]
    return net


def under_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Net()


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.LazyConv2d(8, 3, padding=1)
        self.bn = nn.LazyBatchNorm2d()
        self.fc = nn.LazyLinear(4)


def weight_normed() -> nn.Module:
    net = Net()
    weight_norm(net.conv1)
    net.conv2 = parametrizations.weight_norm(net.conv2)
    return net


def spectral_normed() -> nn.Module:
    net = Net()
    spectral_norm(net.conv1)
    parametrizations.spectral_norm(net.conv2)
    return net


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + weight.transpose(0, 1)


def parametrized() -> nn.Module:
    net = Net()
    parametrize.register_parametrization(net.conv2, "weight", Symmetric())
    return net


def masked() -> nn.Module:
    net = Net()
    prune.l1_unstructured(net.conv2, "weight", 0.5)
    return net
