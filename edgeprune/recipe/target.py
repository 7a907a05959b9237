"""What to prune to."""

from __future__ import annotations

import math
import re
from typing import get_args

from pydantic import Field, ValidationError

from edgeprune.errors import RecipeError
from edgeprune.plain import shown
from edgeprune.recipe.section import Format, Precision, Section, TargetUnit


class Target(Section):
    """What to prune to, e.g. `0.5x`, `8ms`, `150MMACs`, `1.2Mparams`, `900KB`.

    `x` is a share of the original's latency as measured on the device in the same session.
    """

    value: float = Field(gt=0)
    unit: TargetUnit

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target as users write it; raises RecipeError with the forms that are understood."""
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e-?\d+)?)\s*([A-Za-z]+)\s*", text)
        units = {u.lower(): u for u in get_args(TargetUnit)}
        if not match or match.group(2).lower() not in units or not 0 < float(match.group(1)) < math.inf:
            raise RecipeError(
                f"cannot read the target {shown(text)}",
                hint="write it like 0.5x, 8ms, 150MMACs, 1.2Mparams or 900KB",
            )
        return cls(value=float(match.group(1)), unit=units[match.group(2).lower()])

    @property
    def is_latency(self) -> bool:
        return self.unit in ("x", "ms", "us")

    @property
    def takes_nothing(self) -> bool:
        """Whether it is `1x`: no channel is to go."""
        return self.unit == "x" and self.value == 1

    def __str__(self) -> str:
        return (
            f"{self.value:g}{self.unit}"
            if self.unit in ("x", "ms", "us", "KB", "MB")
            else f"{self.value:g} {self.unit}"
        )


class TargetFile(Section):
    """An exported file by its format and precision, as recipes write it: `tflite-int8`."""

    format: Format
    precision: Precision

    @classmethod
    def parse(cls, text: str) -> TargetFile:
        """Read it as users write it; whether an installed exporter writes it is asked elsewhere (`target_file.py`).

        Raises:
            ValueError: it is no format and precision.
        """
        name, _, precision = text.rpartition("-")
        try:
            return cls.model_validate({"format": name, "precision": precision})
        except ValidationError as error:
            known = ", ".join(get_args(Precision))
            raise ValueError(
                f"{shown(text)} is no format and precision ({known}): write it like tflite-int8"
            ) from error

    @property
    def words(self) -> str:
        """As a sentence names it."""
        return f"the {self.precision} {self.format} file"

    def __str__(self) -> str:
        return f"{self.format}-{self.precision}"


def target_that_reads(text: str) -> str:
    """The text of a target; of one that cannot be read the error belongs to its key."""
    try:
        Target.parse(text)
    except RecipeError as error:
        raise ValueError(f"{error.what}: {error.hint}") from error
    return text
