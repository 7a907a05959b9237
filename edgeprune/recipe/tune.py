"""[tune]: how the pruned model is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeprune.recipe.section import (
    MOST_EPOCHS,
    Computing,
    Section,
)

Augment = Literal["none", "crop", "crop-flip"]


class TuneSection(Section):
    """Re-training of the pruned model with distillation from the unpruned one."""

    epochs: int = Field(default=5, ge=0, le=MOST_EPOCHS)
    batch_size: int = Field(default=128, ge=1, le=1 << 16)
    lr: float = Field(default=0.015, gt=0, le=1000)
    weight_decay: float = Field(default=5e-4, ge=0, le=1000)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    distillation: float = Field(default=0.7, ge=0, le=1)
    temperature: float = Field(default=4.0, ge=0.01, le=1000)
    precision: Computing = "fp32"
    augment: Augment | None = None
    cuda_graphs: bool = False
