"""The cases of models, exports and checkpoints (points 9 to 15 and 21)."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from trust_net import FAIL, NAMES, PASS, REFUSED, UNDECIDED, Base, Case, draw_folder

HEAD = """\
import os
import random
import numpy
import torch
from torch import nn
from torch.nn import functional as F
from net import Net


"""
EITHER = (PASS, REFUSED)
ANY_FILE = (PASS, FAIL, REFUSED, UNDECIDED)  # int8 of an odd head may miss its gate, and few images tell little
NEW: dict[str, Any] = {"model": {"checkpoint": None, "untrained": True}, "tune": {"epochs": 0}}
INT8 = {"enabled": True}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def model_cases(base: Base) -> list[Case]:
    def factory(
        point: int,
        name: str,
        code: str,
        ends: tuple[int, ...],
        accuracy: float = 0.0,
        *,
        wrong: Callable[[Path], str] | None = None,
        **sections: Any,
    ) -> Case:
        def written(folder: Path) -> list[object]:
            draw_folder(folder / "images", NAMES, 40, seed=3)
            (folder / "user.py").write_text(f"import sys\nsys.path.insert(0, {str(base.net.parent)!r})\n{HEAD}{code}")
            model = {"factory": "user.py:make", **sections.get("model", {})}
            return base.recipe(folder, **{**sections, "model": model})

        return Case(point, name, written, ends, accuracy, wrong=wrong)

    def checkpoint(
        name: str, write: Callable[[Path, Path], object], ends: tuple[int, ...], accuracy: float = 0
    ) -> Case:
        def written(folder: Path) -> list[object]:
            draw_folder(folder / "images", NAMES, 40, seed=3)
            write(folder / "weights.pth", base.weights)
            return base.recipe(folder, model={"checkpoint": "weights.pth"}, tune={"epochs": 0})

        return Case(15, name, written, ends, accuracy)

    return [
        factory(
            9, "numpy draws a permutation", permuted("numpy.random.default_rng().permutation(48)"), (REFUSED,), **NEW
        ),
        factory(9, "Python draws a permutation", permuted("shuffled(random.SystemRandom())"), (REFUSED,), **NEW),
        factory(9, "the global generators draw one", permuted("numpy.random.permutation(48)"), EITHER, **NEW),
        factory(9, "a hook that closes over the original", HOOK, (REFUSED,)),
        factory(9, "the input is changed in place", INPLACE, EITHER, 0.95),
        factory(9, "random in eval mode", RANDOM_IN_EVAL, (REFUSED,)),
        factory(9, "counts its calls", COUNTING, (REFUSED,)),
        factory(9, "mixes the images of a batch", MIXING, (REFUSED,)),
        factory(10, "LSTM at 18,000 parameters", LSTM, EITHER, wrong=at_most(18_000), prune=params(18), **NEW),
        factory(10, "transposed convolutions", DECODER, EITHER, wrong=at_most(18_000), prune=params(18), **NEW),
        factory(10, "einsum with a parameter", EINSUM, EITHER, wrong=at_most(18_000), prune=params(18), **NEW),
        factory(11, "the factory exits with 0", "def make():\n    sys.exit(0)\n", (REFUSED,)),
        factory(11, "the file exits with 0", "sys.exit(0)\n", (REFUSED,)),
        factory(11, "forward exits with 0", EXITING, (REFUSED,)),
        Case(11, "no device's name", lambda folder: [*ordinary(base, folder), "--device", ""], (REFUSED,)),
        factory(11, "a compiled factory", "def make():\n    return torch.compile(Net())\n", EITHER, 0.95),
        factory(12, "auxiliary head in train mode", AUXILIARY, EITHER, 0.95),
        factory(12, "weight_norm", WEIGHT_NORM, EITHER, **NEW),
        factory(12, "the old weight_norm", OLD_WEIGHT_NORM, EITHER, **NEW),
        factory(12, "spectral_norm", SPECTRAL_NORM, EITHER, **NEW),
        factory(12, "keeps an activation", KEEPING, EITHER, 0.95),
        factory(12, "a lazy layer", LAZY, EITHER),
        factory(12, "scripted", "def make():\n    return torch.jit.script(Net())\n", (REFUSED,)),
        factory(12, "half precision", "def make():\n    return Net().half()\n", EITHER, 0.95),
        factory(12, "double precision", "def make():\n    return Net().double()\n", EITHER, 0.95),
        factory(12, "reads num_features", READING, EITHER, 0.95),
        factory(12, "a backbone under no_grad", FROZEN, EITHER, 0.95),
        factory(12, "nothing trains", "def make():\n    return Net().requires_grad_(False)\n", EITHER, 0.95),
        factory(12, "answers a dictionary", DICTIONARY, (REFUSED,)),
        Case(12, "torchvision.models:resnet18", lambda folder: torchvision(base, folder), (PASS, REFUSED)),
        factory(13, "CBAM", CBAM, EITHER, prune=params(18), **NEW),
        factory(13, "multi-head attention", ATTENTION, EITHER, prune=params(18), **NEW),
        factory(9, "sets torch's default type", f"def make():\n    {DOUBLE}\n    return Net()\n", (PASS,), 0.95),
        factory(9, "switches gradients off", f"def make():\n    {NO_GRADIENTS}\n    return Net()\n", (PASS,), 0.95),
        factory(9, "parses its arguments, and moves", SCRIPT, (PASS,), 0.95),
        factory(9, "a list of layers that are not registered", LISTED, (REFUSED,), **NEW),
        factory(10, "bidirectional GRU", GRU, (PASS,), wrong=at_most(18_000), prune=params(18), **NEW),
        factory(10, "cells of an LSTM", CELLS, EITHER, wrong=at_most(18_000), prune=params(18), **NEW),
        factory(12, "casts its input to float32", CASTING, (PASS,), 0.95),
        factory(12, "reads a convolution's weight again", WEIGHT_AGAIN, (PASS,), 0.9),
        factory(12, "counts its calls in a buffer", COUNTER, EITHER, 0.95),
        factory(12, "quantized", QUANTIZED, (REFUSED,), **NEW),
        factory(
            12, "answers (N, C, 1, 1)", forward_of("return super().forward(x)[:, :, None, None]"), (REFUSED,), **NEW
        ),
        factory(12, "one logit", "def make():\n    return Net(1)\n", (REFUSED,), **NEW),
        factory(12, "batch norms without statistics", BATCH_NORMED, (REFUSED,), **NEW),
        factory(13, "a spatial transformer", SPATIAL, ANY_FILE, prune=params(18), **NEW),
        factory(13, "a Fourier transform", FOURIER, ANY_FILE, prune=params(18), **NEW),
        factory(14, "int8 of a cosine head", COSINE, ANY_FILE, 0.9, quantize=INT8),
        factory(14, "int8 of ceil-mode pools", CEIL, ANY_FILE, quantize=INT8, **NEW),
        factory(14, "int8 of a transformer encoder", ENCODER, ANY_FILE, quantize=INT8, **NEW),
        checkpoint("Lightning", lightning, (PASS,), 0.95),
        checkpoint("EMA beside raw weights", with_ema, (PASS,), 0.95),
        checkpoint("SWA", swa, (PASS,), 0.95),
        checkpoint("compiled in DataParallel", prefixed, (PASS,), 0.95),
        checkpoint("nested twice", nested, (PASS,), 0.95),
        checkpoint("safetensors named .pth", lambda file, weights: shutil.copy(weights, file), (PASS,), 0.95),
        checkpoint("wrappers within its names", wrapped_within, (PASS,), 0.95),
        checkpoint("8-bit integers", in_integers, (REFUSED,)),
        checkpoint("a whole pickled model", whole, (REFUSED,)),
        checkpoint("an HTML page", holding("<!DOCTYPE html><html>"), (REFUSED,)),
        checkpoint("empty", holding(""), (REFUSED,)),
        checkpoint("a pointer of Git LFS", holding(POINTER), (REFUSED,)),
        Case(21, "os:system", lambda folder: os_system(base, folder), (REFUSED,), wrong=no_trace),
    ]


def ordinary(base: Base, folder: Path) -> list[object]:
    draw_folder(folder / "images", NAMES, 40, seed=3)
    return base.recipe(folder)


def params(thousands: int) -> dict[str, Any]:
    return {"target": f"{thousands}kparams", "tolerance": 0.1, "scoring_batches": 1, "judging_images": 64}


def at_most(parameters: int) -> Callable[[Path], str]:
    """The merged model has as many parameters as were asked for, counted in its file."""

    def look(folder: Path) -> str:
        file = folder / "run" / "merge" / "model.safetensors"
        count = sum(tensor.numel() for tensor in load_file(file).values()) if file.exists() else 0
        return f"{count} parameters came, {parameters} were asked for" if count > 1.1 * parameters else ""

    return look


def no_trace(folder: Path) -> str:
    return "a command ran" if (folder / "ran").exists() else ""


def os_system(base: Base, folder: Path) -> list[object]:
    draw_folder(folder / "images", NAMES, 10, seed=3)
    return base.recipe(
        folder, model={"factory": "os:system", "arguments": {"command": "touch ran"}, "checkpoint": None}
    )


def torchvision(base: Base, folder: Path) -> list[object]:
    """Its weights are random, and it says so."""
    draw_folder(folder / "images", NAMES, 10, seed=3)
    model = {"factory": "torchvision.models:resnet18", "arguments": {"num_classes": 12}, **NEW["model"]}
    return base.recipe(folder, model=model, tune={"epochs": 0}, prune={"target": "9Mparams"})


def lightning(file: Path, weights: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in load_file(weights).items()}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 99, "pytorch-lightning_version": "2.4.0"}, file)


def with_ema(file: Path, weights: Path) -> None:
    """As timm saves it; the raw weights are worthless."""
    state = load_file(weights)
    raw = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    torch.save({"state_dict": raw, "state_dict_ema": state, "epoch": 3, "arch": "net"}, file)


def swa(file: Path, weights: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in load_file(weights).items()}
    torch.save({"n_averaged": torch.tensor(5), **state}, file)


def prefixed(file: Path, weights: Path) -> None:
    torch.save({f"module._orig_mod.{name}": tensor for name, tensor in load_file(weights).items()}, file)


def nested(file: Path, weights: Path) -> None:
    torch.save({"checkpoint": {"model": {"state_dict": load_file(weights)}}, "best_acc1": 99.0}, file)


def wrapped_within(file: Path, weights: Path) -> None:
    """nn.DataParallel around a part, as torchvision's VGG was trained; arrays beside it."""
    state = {name.replace("body.", "body.module."): tensor for name, tensor in load_file(weights).items()}
    torch.save({"state_dict": state, "losses": torch.arange(3).numpy()}, file)


def in_integers(file: Path, weights: Path) -> None:
    """Quantized, and without the scales."""
    torch.save({name: (100 * tensor).to(torch.int8) for name, tensor in load_file(weights).items()}, file)


class _Anything:
    def __reduce__(self) -> tuple[Any, ...]:
        return json.loads, ("[]",)


def whole(file: Path, weights: Path) -> None:
    """A pickle that holds more than tensors."""
    del weights
    file.write_bytes(pickle.dumps({"model": _Anything()}))


def holding(text: str) -> Callable[[Path, Path], object]:
    def write(file: Path, weights: Path) -> None:
        del weights
        file.write_text(text)

    return write


def permuted(order: str) -> str:
    return f"""\
def shuffled(source):
    order = list(range(48))
    source.shuffle(order)
    return order


class Permuted(Net):
    def __init__(self):
        super().__init__()
        self.order = torch.as_tensor({order})

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.body(x)[:, self.order], 4).flatten(1))


def make():
    return Permuted()
"""


def forward_of(body: str, init: str = "") -> str:
    """A class like the net, with more in __init__ and a `forward` of its own."""
    lines = [f"        {line}" for line in body.splitlines()]
    more = [f"        {line}" for line in init.splitlines()]
    start = ["    def __init__(self):", "        super().__init__()", *more, ""] if init else []
    head = ["class User(Net):", *start, "    def forward(self, x):", *lines]
    return "\n".join([*head, "", "", "def make():", "    return User()", ""])


HOOK = """\
def make():
    net = Net()
    net.body[1].register_forward_hook(lambda module, args, output: output * 0 + net.body[1][0](args[0]).relu())
    return net
"""
INPLACE = forward_of("return super().forward(x.mul_(2).sub_(1).add_(1).div_(2))")
RANDOM_IN_EVAL = forward_of("return super().forward(F.dropout(x, 0.1, True))")
COUNTING = forward_of("self.calls += 1\nreturn super().forward(x + self.calls)", "self.calls = 0")
MIXING = forward_of("return super().forward(x - x.mean(0, keepdim=True))")
EXITING = forward_of("raise SystemExit(0)")
AUXILIARY = forward_of("y = super().forward(x)\nreturn (y, 0.5 * y) if self.training else y")
KEEPING = forward_of("self.kept = self.features(x)\nreturn self.head(self.kept)")
READING = forward_of("assert self.body[0][1].num_features > 0\nreturn super().forward(x)")
FROZEN = forward_of("with torch.no_grad():\n    x = self.features(x)\nreturn self.head(x)")
DICTIONARY = forward_of("return {'logits': super().forward(x)}")
COSINE = forward_of(
    "return 8 * F.linear(F.normalize(self.features(x)), F.normalize(self.head.weight)) + self.head.bias"
)
CEIL = forward_of(
    "x = F.max_pool2d(self.body(x), 3, 2, ceil_mode=True)\n"
    "x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)\nreturn self.head(F.adaptive_avg_pool2d(x, 4).flatten(1))"
)
LAZY = """\
def make():
    net = Net()
    net.head = nn.LazyLinear(12)
    return net
"""
WEIGHT_NORM = "def make():\n    net = Net()\n    nn.utils.parametrizations.weight_norm(net.head)\n    return net\n"
OLD_WEIGHT_NORM = "def make():\n    net = Net()\n    nn.utils.weight_norm(net.head)\n    return net\n"
SPECTRAL_NORM = "def make():\n    net = Net()\n    nn.utils.parametrizations.spectral_norm(net.head)\n    return net\n"
LSTM = forward_of(
    "y, _ = self.lstm(self.body(x).flatten(2).transpose(1, 2))\nreturn self.last(y[:, -1])",
    "self.lstm = nn.LSTM(48, 64, batch_first=True)\nself.last = nn.Linear(64, 12)\ndel self.head",
)
DECODER = forward_of(
    "x = self.up2(self.up1(self.body(x)).relu()).relu()\nreturn self.last(x.mean((2, 3)))",
    "self.up1 = nn.ConvTranspose2d(48, 32, 2, 2)\nself.up2 = nn.ConvTranspose2d(32, 24, 2, 2)\n"
    "self.last = nn.Linear(24, 12)\ndel self.head",
)
EINSUM = forward_of(
    "return torch.einsum('nchw,kc->nk', self.body(x), self.mix)",
    "self.mix = nn.Parameter(torch.randn(12, 48))\ndel self.head",
)
CBAM = forward_of(
    "x = self.body(x)\nx = x * torch.sigmoid(self.squeeze(x.amax((2, 3), keepdim=True)) "
    "+ self.squeeze(x.mean((2, 3), keepdim=True)))\n"
    "x = x * torch.sigmoid(self.where(torch.cat((x.max(1, True).values, x.mean(1, True)), 1)))\n"
    "return self.head(F.adaptive_avg_pool2d(x, 4).flatten(1))",
    "self.squeeze = nn.Sequential(nn.Conv2d(48, 12, 1), nn.ReLU(), nn.Conv2d(12, 48, 1))\n"
    "self.where = nn.Conv2d(2, 1, 7, padding=3)",
)
ATTENTION = forward_of(
    "x = self.body(x).flatten(2).transpose(1, 2)\ny, _ = self.mix(x, x, x)\nreturn self.last((x + y).mean(1))",
    "self.mix = nn.MultiheadAttention(48, 4, batch_first=True)\nself.last = nn.Linear(48, 12)\ndel self.head",
)
ENCODER = forward_of(
    "return self.last(self.mix(self.body(x).flatten(2).transpose(1, 2)).mean(1))",
    "self.mix = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True)\nself.last = nn.Linear(48, 12)\ndel self.head",
)
DOUBLE = "torch.set_default_dtype(torch.float64)"
NO_GRADIENTS = "torch.set_grad_enabled(False)"
SCRIPT = """\
def make():
    import argparse
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=24)
    width = parser.parse_args().width
    os.chdir("/")
    return Net(width=width)
"""
LISTED = forward_of(
    "return super().forward(self.more[0](x))",
    "self.more = [nn.Conv2d(3, 3, 1)]",
)
GRU = forward_of(
    "y, _ = self.gru(self.body(x).flatten(2).transpose(1, 2))\nreturn self.last(y.mean(1))",
    "self.gru = nn.GRU(48, 24, batch_first=True, bidirectional=True)\nself.last = nn.Linear(48, 12)\ndel self.head",
)
CELLS = forward_of(
    "x = self.body(x).flatten(2).permute(2, 0, 1)\nh = c = x.new_zeros(x.shape[1], 32)\n"
    "for step in x[:4]:\n    h, c = self.cell(step, (h, c))\nreturn self.last(h)",
    "self.cell = nn.LSTMCell(48, 32)\nself.last = nn.Linear(32, 12)\ndel self.head",
)
CASTING = forward_of("return super().forward(x.float())")
WEIGHT_AGAIN = forward_of("return super().forward(x) + 0.01 * self.body[0][0].weight.mean()")
COUNTER = forward_of(
    "self.calls += 1\nreturn super().forward(x)",
    "self.register_buffer('calls', torch.zeros((), dtype=torch.long), persistent=False)",
)
QUANTIZED = "def make():\n    return torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear})\n"
BATCH_NORMED = forward_of(
    "return self.head(F.adaptive_avg_pool2d(self.norm(self.body(x)), 4).flatten(1))",
    "self.norm = nn.BatchNorm2d(48, track_running_stats=False)",
)
SPATIAL = forward_of(
    "theta = self.where(F.adaptive_avg_pool2d(x, 4).flatten(1)).view(-1, 2, 3)\n"
    "grid = F.affine_grid(theta, list(x.shape), align_corners=False)\n"
    "return super().forward(F.grid_sample(x, grid, align_corners=False))",
    "self.where = nn.Linear(48, 6)",
)
FOURIER = forward_of("return self.head(F.adaptive_avg_pool2d(torch.fft.fft2(self.body(x)).real, 4).flatten(1))")
