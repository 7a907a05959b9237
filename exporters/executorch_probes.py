"""One-operation .pte files: what the latency table is measured with on ExecuTorch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.graph.operations import OpSignature
from exporters.executorch_lowering import lower, write

SAMPLES = 4  # that int8 probes are quantized with
FUNCTIONS: dict[str, type[nn.Module]] = {
    "": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


class _Binary(nn.Module):
    """One input, as runners feed: the second operand is the input itself, or a constant where it is broadcast."""

    def __init__(self, signature: OpSignature) -> None:
        super().__init__()
        self.s, self.function = signature, FUNCTIONS[signature.function]()
        if signature.broadcast:
            self.other = nn.Buffer(torch.randn(1, signature.in_channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        other = self.other if self.s.broadcast else x
        return self.function(x + other if self.s.kind == "add" else x * other)


class _Border(nn.Module):
    """What an int8 .pte does where it begins and ends, and nothing between."""

    def forward(self, x: Tensor) -> Tensor:
        quantized = torch.ops.quantized_decomposed
        inside = quantized.quantize_per_tensor(x, 0.03, 0, -128, 127, torch.int8)
        return cast(Tensor, quantized.dequantize_per_tensor(inside, 0.03, 0, -128, 127, torch.int8))


class _Pool(nn.Module):
    def __init__(self, signature: OpSignature) -> None:
        super().__init__()
        self.s, self.function = signature, FUNCTIONS[signature.function]()

    def forward(self, x: Tensor) -> Tensor:
        s = self.s
        if s.kind == "mean":
            return self.function(x.mean((2, 3), keepdim=True))
        if s.kind == "avg_pool2d":
            return self.function(F.avg_pool2d(x, s.kernel, s.stride, s.padding))
        return self.function(F.max_pool2d(x, s.kernel, s.stride, s.padding, s.dilation))


def module_of(signature: OpSignature, *, int8: bool = False) -> tuple[nn.Module, Tensor]:
    """The operation as a module with an example of its one input, batch 1, random weights.

    Images are in channels_last memory: so the probe holds no layout conversion (a third of a small convolution's
    time), as in the middle of a model, where XNNPACK keeps that layout between its operators.

    Raises:
        KeyError: an activation that is not known here.
    """
    s = signature
    if s.kind == "linear":
        return nn.Sequential(nn.Linear(s.in_channels, s.out_channels), FUNCTIONS[s.function]()), torch.randn(
            s.height, s.in_channels
        )
    image = torch.randn(1, s.in_channels, s.height, s.width).to(memory_format=torch.channels_last)
    module: nn.Module
    if s.kind in ("conv2d", "depthwise_conv2d"):
        convolution = nn.Conv2d(
            s.in_channels, s.out_channels, s.kernel, s.stride, s.padding, s.dilation, groups=s.groups
        )
        module = nn.Sequential(convolution, FUNCTIONS[s.function]())
    elif s.kind in ("add", "mul"):
        module = _Binary(s)
    elif s.kind == "activation":
        if not s.function and not int8:
            raise KeyError("an activation without a name")
        module = FUNCTIONS[s.function]() if s.function else _Border()
    else:
        module = _Pool(s)
    return module, image


def build(signatures: Sequence[OpSignature], folder: Path, *, int8: bool = False) -> dict[str, Path]:
    """Write a .pte for each signature; one that torch or ExecuTorch refuses is logged and left out.

    With `int8` it is quantized as whole models are, with seeded random inputs; what the quantizer leaves out stays in
    float. Input and output are float32, as those of an int8 .pte are: an activation without a name (see
    `probes.borders_of`) is what that takes.
    """
    files: dict[str, Path] = {}
    for signature in signatures:
        key = signature.key()
        file = folder / f"{signature.kind}_{hashlib.sha256(key.encode()).hexdigest()[:16]}.pte"
        try:
            _write(signature, file, int8=int8)
        except (KeyError, ValueError, RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            logging.getLogger(__name__).warning("no probe for %s: %s", key, error)
            continue
        files[key] = file
    return files


def _lower(signature: OpSignature, program: torch.export.ExportedProgram) -> Any:
    """Plain convolutions and sums come out of the older flow the same, in a third of the time (0.3 s each)."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge

    plain = signature.kind in ("conv2d", "depthwise_conv2d", "add", "mul") and signature.function in (
        "",
        "relu",
        "relu6",
    )
    if not plain:
        return lower(program)
    edge = to_edge(program, compile_config=EdgeCompileConfig(_check_ir_validity=False))
    return edge.to_backend(XnnpackPartitioner())


def _write(signature: OpSignature, file: Path, *, int8: bool) -> None:
    module, example = module_of(signature, int8=int8)
    with torch.no_grad():
        program = torch.export.export(module.eval(), (example,), strict=False)
    if int8 and not isinstance(module, _Border):
        from edgeprune.quantization.pt2e import quantize_samples

        random = torch.Generator().manual_seed(0)
        samples = [(torch.empty_like(example).normal_(generator=random),) for _ in range(SAMPLES)]
        program = quantize_samples(program, samples)
    part = file.with_suffix(".part")
    try:
        write(_lower(signature, program), part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
