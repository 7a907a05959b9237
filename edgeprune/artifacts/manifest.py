"""The manifest: what travels with an exported file so that anybody can run and check it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeprune.models.spec import Preprocessing
from edgeprune.recipe import Format, Precision


class TensorSpec(BaseModel):
    """An input or output of the file, batch 1.

    `layout` is NCHW, NHWC or NC. Quantized tensors: real = scale * (stored - zero_point).
    """

    model_config = ConfigDict(frozen=True)
    name: str
    shape: tuple[int, ...]
    dtype: Literal["float32", "float16", "int8", "uint8"]
    layout: Literal["NCHW", "NHWC", "NC"]
    scale: float | None = None
    zero_point: int | None = None


class Delegation(BaseModel):
    """Which share of the operators the accelerated backend runs, and the names of those left outside."""

    model_config = ConfigDict(frozen=True)
    backend: str
    delegated: int  # operators inside the delegate
    outside: int  # operators left to the runtime's own kernels
    outside_operators: dict[str, int] = {}

    @property
    def share_outside(self) -> float:
        total = self.delegated + self.outside
        return self.outside / total if total else 0.0


class Manifest(BaseModel):
    """Everything that is known of an exported file."""

    model_config = ConfigDict(frozen=True)
    version: Literal[1] = 1
    format: Format
    precision: Precision
    weights_precision: Precision  # Core ML "int8" holds int8 weights and computes in fp16
    file: str  # beside the manifest; a folder for .mlpackage
    sha256: str  # of the file; of the sorted (path, sha256) list for a folder
    size_bytes: int
    input: TensorSpec
    output: TensorSpec
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    reference: str  # safetensors beside it: "input" (N, C, H, W) float32 and "output" (N, classes) of the float model
    delegation: Delegation | None
    toolkit: dict[str, str]  # package -> version
    seconds: float
