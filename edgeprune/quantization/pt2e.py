"""int8 for ExecuTorch: PT2E with the XNNPACK quantizer. Runs inside a conversion child."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeprune.quantization.calibration import calibration_images


def quantize_pt2e(program: ExportedProgram, calibration: Tensor) -> ExportedProgram:
    """The program in int8: see `quantize_samples`. `calibration` is (N, C, H, W) float32."""
    return quantize_samples(program, calibration_images(calibration).split(1))  # it is traced with batch 1


def quantize_samples(program: ExportedProgram, samples: Sequence[Tensor]) -> ExportedProgram:
    """The program with int8 weights (symmetric, per channel) and int8 activations (affine, per tensor).

    `samples` are inputs in float32, of the shape that the program takes. Activation ranges come from torchao's
    histogram observers, which choose the range of least quantization error: on CIFAR-10 ResNets as good as the plain
    extremes, and safer with outliers.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(program.module(), quantizer)
    with torch.no_grad():
        for sample in samples:
            prepared(sample)
    converted = cast(nn.Module, convert_pt2e(prepared))
    return torch.export.export(converted, (samples[0],), strict=False)
