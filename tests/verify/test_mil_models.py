"""Packages that coremltools writes compute what their torch model computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_nets import NETS, Convert, Inverted, Residual, randomize
from torch import nn

from edgeprune.verify.mil import load_program, run_mlpackage
from edgeprune.verify.parity import sqnr_db


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
