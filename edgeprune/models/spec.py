"""What a model is, apart from its weights: where it comes from, what it eats, what it answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, model_validator

from edgeprune.recipe import InputShape, input_size_fault, inputs_fault

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edgeprune.models.checkpoint import Loaded


class Preprocessing(BaseModel):
    """How an image becomes the model's input: resize, centre crop, scale to 0..1, subtract mean, divide by std.

    `resize` sets the shorter side after resizing, before `crop_pct`.
    """

    model_config = ConfigDict(frozen=True)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    resize: int | None = None


class OutputSpec(BaseModel):
    """An output of the model, in the order in which it answers: its name, and its shape for one image."""

    model_config = ConfigDict(frozen=True)
    name: str
    shape: tuple[int, ...]


class InputSpec(BaseModel):
    """An input of a model that takes several, or one that is no image: its name, and its shape for one example, the
    batch axis left out."""

    model_config = ConfigDict(frozen=True)
    name: str
    shape: InputShape


class ModelSpec(BaseModel):
    """Everything needed to build the model again in another process, weights aside."""

    model_config = ConfigDict(frozen=True)
    source: str  # "timm:NAME", "package.module:factory" or "/path/file.py:factory"
    arguments: dict[str, Any] = {}
    input_size: tuple[int, int, int]  # channels, height, width; of several inputs 1, 1 and all their numbers
    inputs: tuple[InputSpec, ...] = ()  # none of a model that takes one image (see `inputs.py`)
    num_classes: int  # of a classifier; else the channels of its first output
    outputs: tuple[OutputSpec, ...] = ()  # none in specs of before models had several
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    written_plainly: tuple[str, ...] = ()  # its nn.MultiheadAttention that became plain layers at load
    versions: dict[str, str] = {}  # timm and torch, as they were when the spec was made

    @property
    def takes(self) -> str:
        """What it takes, in words: its size, or each input's name and size, with the sign of multiplication."""
        named = (f"{one.name} {_size(one.shape)}" for one in self.inputs)
        return ", ".join(named) or _size(self.input_size)

    @model_validator(mode="after")
    def _an_input(self) -> ModelSpec:
        shapes = {one.name: one.shape for one in self.inputs}
        fault = inputs_fault(shapes) if self.inputs else input_size_fault(self.input_size)
        if not fault and self.inputs and self.input_size != packed_size(self.inputs):
            fault = f"`inputs` have {packed_size(self.inputs)[2]} numbers"
        if fault:
            raise ValueError(f"input_size {self.input_size}: {fault}")
        return self


def _size(numbers: Sequence[int]) -> str:
    return "\u00d7".join(map(str, numbers))


def packed_size(inputs: Sequence[InputSpec]) -> tuple[int, int, int]:
    """The size of the tensor that holds several inputs in a row: 1, 1, and how many numbers they have together."""
    return 1, 1, sum(math.prod(one.shape) for one in inputs)


@dataclass(frozen=True)
class Model:
    """A module with its spec. Stages return new Models; none changes the one it was given."""

    spec: ModelSpec
    module: nn.Module
    checkpoint: Path | None = None
    loaded: Loaded | None = None  # what was taken from the checkpoint
    said: tuple[str, ...] = ()  # what loading did that its user did not ask for, in words

    def example_input(self, batch: int = 1, *, seed: int = 0, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Standard-normal input of shape (batch, channels, height, width); of a model of several inputs see
        `inputs.py`."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, *self.spec.input_size, generator=generator, dtype=dtype or torch.float32)

    def with_module(self, module: nn.Module) -> Model:
        return replace(self, module=module)
