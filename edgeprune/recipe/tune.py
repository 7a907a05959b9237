"""[tune]: how the pruned model is trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgeprune.recipe.section import MOST_EPOCHS, Computing, Section, Share

Schedule = Literal["cosine", "step", "multistep", "plateau", "poly", "tanh", "wsd", "rsqrt", "constant"]
Epoch = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
_RANDAUGMENT = re.compile(r"rand(-(m\d+|n\d+|p\d*\.?\d+|mstd\d*\.?\d+|mmax\d+|inc[01]|t[a-z0-9]+))*")

Augment = Literal["none", "crop", "crop-flip"]


class TuneSection(Section):
    """Re-training of the pruned model: how far and by what (`epochs` to `layer_decay`), what of (`distillation` to
    `feature_layers`), on which images (`augment` to `workers`), and how it is computed."""

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
    optimizer: str = Field(default="sgd", pattern=r"^[a-z0-9_]+$", max_length=64)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    schedule: Schedule = "cosine"
    min_lr: float = Field(default=0.0, ge=0, le=1000)
    decay_rate: float = Field(default=0.1, gt=0, le=1000)
    decay_epochs: float | None = Field(default=None, gt=0, le=MOST_EPOCHS)
    milestones: tuple[Epoch, ...] = ()
    patience: int = Field(default=2, ge=0, le=MOST_EPOCHS)
    ema: float = Field(default=0.0, ge=0, lt=1)
    accumulate: int = Field(default=1, ge=1, le=1 << 16)
    clip: float = Field(default=0.0, ge=0, le=1e9)
    checkpointing: bool = False
    randaugment: str | None = None
    mixup: float = Field(default=0.0, ge=0, le=1000)
    cutmix: float = Field(default=0.0, ge=0, le=1000)
    erasing: Share = 0.0
    repeats: int = Field(default=1, ge=1, le=64)
    workers: int = Field(default=0, ge=0, le=256)
    teacher: str | None = Field(default=None, min_length=1)
    teacher_checkpoint: Path | None = None
    teacher_weight: float = Field(default=0.5, ge=0, le=1000)
    features: float = Field(default=0.0, ge=0, le=1000)
    feature_layers: tuple[str, ...] = ()
    tracker: str | None = Field(default=None, min_length=1, max_length=64)

    @field_validator("randaugment")
    @classmethod
    def _randaugment_reads(cls, words: str | None) -> str | None:
        if words is not None and not _RANDAUGMENT.fullmatch(words):
            raise ValueError('it is "rand" and settings, each after a dash, as timm has them: "rand-m9-mstd0.5"')
        return words

    @model_validator(mode="after")
    def _goes_together(self) -> TuneSection:
        if self.schedule == "step" and self.decay_epochs is None:
            raise ValueError("the schedule `step` lowers the rate every `decay_epochs` epochs: say how many")
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("the schedule `multistep` lowers the rate after `milestones`: name the epochs")
        if self.schedule in ("wsd", "rsqrt") and (self.decay_epochs or 0) >= max(1, self.epochs):
            raise ValueError(f"the schedule `{self.schedule}` falls in the last `decay_epochs` of the epochs: lower it")
        if self.teacher_checkpoint is not None and self.teacher is None:
            raise ValueError("`teacher_checkpoint` has the weights of a `teacher`: name it, too")
        if self.feature_layers and not self.features:
            raise ValueError("`feature_layers` are for `features`, whose weight in the loss is 0")
        if self.mixup or self.cutmix:
            if self.batch_size < 2:
                raise ValueError("`mixup` and `cutmix` mix images of a batch, which has one: raise `batch_size`")
            if self.accumulate > 1 and self.batch_size % 2:
                raise ValueError("`mixup` and `cutmix` mix images in pairs: make `batch_size` even")
        return self
