"""One-operation .pte files: what the latency table is measured with on ExecuTorch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.structure.operations import OpSignature

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
    def __init__(self, kind: str, function: str) -> None:
        super().__init__()
        self.kind, self.function = kind, FUNCTIONS[function]()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a + b if self.kind == "add" else a * b)


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


def module_of(signature: OpSignature) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The operation as a module with an example of its inputs, batch 1, random weights.

    Raises:
        KeyError: an activation that is not known here.
    """
    s = signature
    image = torch.randn(1, s.in_channels, s.height, s.width)
    if s.kind in ("conv2d", "depthwise_conv2d"):
        convolution = nn.Conv2d(
            s.in_channels, s.out_channels, s.kernel, s.stride, s.padding, s.dilation, groups=s.groups
        )
        return nn.Sequential(convolution, FUNCTIONS[s.function]()).eval(), (image,)
    if s.kind == "linear":
        module = nn.Sequential(nn.Linear(s.in_channels, s.out_channels), FUNCTIONS[s.function]())
        return module.eval(), (torch.randn(s.height, s.in_channels),)
    if s.kind in ("add", "mul"):
        other = torch.randn(1, s.in_channels, 1, 1) if s.broadcast else torch.randn_like(image)
        return _Binary(s.kind, s.function).eval(), (image, other)
    if s.kind == "activation":
        if not s.function:
            raise KeyError("an activation without a name")
        return FUNCTIONS[s.function]().eval(), (image,)
    return _Pool(s).eval(), (image,)


def build(signatures: Sequence[OpSignature], folder: Path) -> dict[str, Path]:
    """Write a .pte for each signature; one that torch or ExecuTorch refuses is logged and left out."""
    files: dict[str, Path] = {}
    for signature in signatures:
        key = signature.key()
        file = folder / f"{signature.kind}_{hashlib.sha256(key.encode()).hexdigest()[:16]}.pte"
        try:
            _write(signature, file)
        except (KeyError, ValueError, RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            logging.getLogger(__name__).warning("no probe for %s: %s", key, error)
            continue
        files[key] = file
    return files


def _write(signature: OpSignature, file: Path) -> None:
    from exporters.executorch import lower, write

    module, inputs = module_of(signature)
    with torch.no_grad():
        program = torch.export.export(module, inputs, strict=False)
    part = file.with_suffix(".part")
    try:
        write(lower(program), part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
