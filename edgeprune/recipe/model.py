"""[model]: which model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgeprune.recipe.section import InputShape, InputSize, Section, inputs_fault


class ModelSection(Section):
    """Which model: a timm name, or the user's own `package.module:factory` (or `file.py:factory`).

    `accuracy`: what it is known to have, as a share of the test images, `metric` the same of
    a task with another metric, in its units; `untrained`: it may know nothing yet."""

    name: str | None = None
    factory: str | None = None
    arguments: dict[str, Any] = Field(default={})
    pretrained: bool = False
    checkpoint: Path | None = None
    weights: Literal["ema", "raw"] | None = None
    num_classes: int | None = Field(default=None, gt=0, le=1_000_000)
    input_size: InputSize | None = None
    inputs: dict[str, InputShape] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    labels: tuple[str, ...] | Path | None = None
    accuracy: float | None = Field(default=None, gt=0, le=1)
    metric: float | None = None
    untrained: bool = False

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> ModelSection:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and self.input_size is not None and len(values) != self.input_size[0]:
                raise ValueError(f"`{name}` has {len(values)} values, and `input_size` {self.input_size[0]} channels")
        return self

    @model_validator(mode="after")
    def _one_expectation(self) -> ModelSection:
        if self.untrained and (self.accuracy is not None or self.metric is not None):
            raise ValueError("`untrained` says that the model knows nothing, and `accuracy` what it knows: give one")
        if self.accuracy is not None and self.metric is not None:
            raise ValueError("`accuracy` and `metric` say the same: give one of them")
        return self

    @model_validator(mode="after")
    def _several_inputs(self) -> ModelSection:
        if self.inputs is None:
            return self
        given = [name for name in ("name", "input_size", "mean", "std") if getattr(self, name) is not None]
        if given:
            raise ValueError(f"`inputs` are those of a factory that takes no image: leave out {', '.join(given)}")
        if fault := inputs_fault(self.inputs):
            raise ValueError(f"`inputs`: {fault}")
        return self

    @property
    def source(self) -> str:
        """Where the model comes from: `timm:NAME`, or the factory."""
        return self.factory if self.factory is not None else f"timm:{(self.name or '').removeprefix('timm:')}"

    @model_validator(mode="after")
    def _one_source(self) -> ModelSection:
        if (self.name is None) == (self.factory is None):
            raise ValueError("give exactly one of `name` (a timm model) and `factory` (package.module:function)")
        return self
