"""[sparse]: zeros among the weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edgeprune.recipe.section import (
    Section,
    SparseLayers,
)
from edgeprune.recipe.target import Target, target_that_reads


class SparseSection(Section):
    """Zeros among the weights of 1x1 convolutions, kept through re-training, and a .tflite file that stores them as
    such where the device runs it faster; with `layers` "all" among those of every convolution and linear layer, which
    saves no time beside. `zeros` is a share of these weights, or of their multiply-accumulates (`of`);
    0 leaves all of that out. With `target` the share is found: the least by which the file takes that latency on the
    device (`0.5x` of the unpruned model's, `8ms`), or the model so many multiply-accumulates (`60MMACs`)."""

    zeros: float = Field(default=0.0, ge=0, lt=1)
    target: str | None = None
    of: Literal["weights", "macs"] = "weights"
    scope: Literal["global", "uniform"] = "global"
    block: Literal[1, 2, 4] = 2
    layers: SparseLayers = "1x1"

    @field_validator("target")
    @classmethod
    def _target_reads(cls, text: str | None) -> str | None:
        return None if text is None else target_that_reads(text)

    @model_validator(mode="after")
    def _one_way(self) -> SparseSection:
        if self.target is None:
            if self.model_fields_set and "zeros" not in self.model_fields_set:
                raise ValueError(
                    f"{', '.join(sorted(self.model_fields_set))}: of how many zeros? Give their share, `zeros`, or a "
                    "`target` (`zeros = 0` is none)"
                )
            return self
        target = Target.parse(self.target)
        if target.is_latency and self.layers != "1x1":
            raise ValueError(
                "no other zeros than those of 1x1 convolutions save time: leave `layers` out, or give MACs"
            )
        if not target.is_latency and target.unit not in ("MMACs", "GMACs"):
            raise ValueError(f"zeros take no {target.unit} away that are counted: give a latency or MACs")
        if self.zeros:
            raise ValueError("`target` says what the zeros are to reach, `zeros` how many there are: give one of them")
        return self

    @property
    def asked(self) -> bool:
        """Whether there are to be zeros."""
        return self.zeros > 0 or self.target is not None
