"""Packages that coremltools writes compute what their torch model computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Convert, randomize
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.verify.mil import load_program, run_mlpackage
from edgeprune.verify.parity import sqnr_db


class Residual(nn.Module):
    """resnet: stem with max pool, a block, a strided block with a grouped convolution and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16))
        self.a = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        self.b = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1, groups=4, bias=False), nn.BatchNorm2d(32))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        x = (self.a(x) + x).relu()
        x = (self.b(x) + self.shortcut(x)).relu()
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """mobilenet: depthwise with ReLU6, squeeze-and-excitation, hard swish, SiLU, padding in the style of TensorFlow."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8))
        self.expand = nn.Sequential(nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 5, 1, 2, groups=32, bias=False), nn.BatchNorm2d(32))
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.project = nn.Sequential(nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.same = nn.Conv2d(8, 8, 4, padding="same", dilation=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.stem(x))
        y = functional.hardswish(self.depthwise(self.expand(x)))
        gate = functional.hardsigmoid(self.excite(self.squeeze(functional.adaptive_avg_pool2d(y, 1)).relu()))
        x = x + self.project(y * gate)
        x = functional.silu(self.same(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Patches(nn.Module):
    """convnext and vit: patches, layer norm over channels, GELU, attention, splitting and slicing."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.linspace(-1, 1, 32).reshape(1, 1, 32))
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm(x)).reshape(x.shape[0], -1, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return self.head((x + self.mlp(x))[:, 0])


class Decoder(nn.Module):
    """Everything about resizing and padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 16, 3, padding=(2, 1), dilation=(2, 1)), nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)
        self.slope = nn.PReLU(4)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.leaky_relu(self.conv(x), 0.2)
        x = functional.pixel_shuffle(functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), 2)
        x = self.slope(functional.pad(x, (1, 2, 3, 1), mode="reflect"))
        x = functional.pad(functional.elu(x), (2, 1, 0, 3), mode="replicate")
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = self.up(torch.tanh(x[:, :, 2:-2:2, 1:]))
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = functional.softplus(functional.max_pool2d(x, 3, 2, ceil_mode=True)) - x.amax((2, 3), keepdim=True)
        return self.head(torch.clamp(x.abs().sqrt(), 0.1, 2.0).sum((2, 3)) / 100.0)


NETS = [Residual, Inverted, Patches, Decoder]


def images(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def expected(net: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([net(image) for image in inputs.split(1)]).numpy()


@pytest.mark.parametrize("net", NETS)
def test_fp32_and_fp16_compute_what_torch_computes(net: type[nn.Module], to_coreml: Convert) -> None:
    model, inputs = randomize(net()), images(4)
    reference = expected(model, inputs)
    exact = run_mlpackage(to_coreml(model, images()), inputs.numpy())
    assert exact.shape == reference.shape
    assert exact.dtype == np.float32
    assert sqnr_db(reference, exact) >= 100
    half = run_mlpackage(to_coreml(model, images(), half=True), inputs.numpy())
    assert 45 <= sqnr_db(reference, half) < 90  # really rounded, and no more than that


@pytest.mark.parametrize("target", ["iOS15", "iOS17", "iOS18"])
def test_every_generation_of_the_format(target: str, to_coreml: Convert) -> None:
    model, inputs = randomize(Inverted()), images(2)
    exact = run_mlpackage(to_coreml(model, images(), target=target), inputs.numpy())
    assert sqnr_db(expected(model, inputs), exact) >= 100


@pytest.mark.parametrize(
    ("weights", "target", "operation", "level"),
    [
        ("int8", "iOS16", "constexpr_affine_dequantize", 25),
        ("int8", "iOS18", "constexpr_blockwise_shift_scale", 25),
        ("palette", "iOS16", "constexpr_lut_to_dense", 8),
        ("palette", "iOS18", "constexpr_lut_to_dense", 8),
    ],
)
def test_compressed_weights(weights: str, target: str, operation: str, level: float, to_coreml: Convert) -> None:
    model, inputs = randomize(Residual()), images(2)
    path = to_coreml(model, images(), half=True, target=target, weights=weights)
    assert operation in load_program(path).operations
    assert level <= sqnr_db(expected(model, inputs), run_mlpackage(path, inputs.numpy())) < 60


def test_the_weights_of_the_file_are_what_is_run(to_coreml: Convert) -> None:
    """Changing one byte of the weight file changes the answer: nothing is taken from elsewhere."""
    model, inputs = randomize(Residual()), images()
    path = to_coreml(model, images())
    before = run_mlpackage(path, inputs.numpy())
    weights = path / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[128 + 3] ^= 0x40  # the exponent of the first stored weight
    weights.write_bytes(bytes(data))
    assert not np.array_equal(before, run_mlpackage(path, inputs.numpy()))
