"""What all sections of a recipe are made of: strict tables, names, and what a value may be at most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from edgeprune.kinds import why_another_kind

# Formats and runtimes are what installed exporters write (see installed.py, recipe_names.py).
_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]*"  # it is part of file names
Format = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=64)]
Precision = Literal["fp32", "fp16", "int8"]
Computing = Literal["fp32", "bf16", "fp16", "auto"]
Runtime = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=64)]
Method = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=64)]  # an installed one
AUTO = "auto"  # tries several methods
AllocatorName = Literal[
    "judged", "additive", "knapsack", "netadapt", "nvit", "uniform", "global", "isomorphic", "scales"
]
DROPPING = ("judged", "additive")  # allocators that may let whole branches go
SparseLayers = Literal["1x1", "all"]
TargetUnit = Literal["x", "ms", "us", "MMACs", "GMACs", "kparams", "Mparams", "KB", "MB"]
# What is beyond these was not meant: it would take all memory, or years.
MOST_SIDE = 8192
MOST_INPUT = 1 << 28  # numbers of one input: 1 GiB as float32
MOST_INPUTS, MOST_AXES = 64, 6
Side = Annotated[int, Field(ge=1, le=MOST_SIDE)]
InputShape = tuple[Annotated[int, Field(ge=1, le=MOST_INPUT)], ...]  # of one example: the batch axis is left out


def input_size_fault(size: Sequence[object]) -> str:
    """Why this is no size of a model's input, in words; empty if it is one."""
    sides = [side for side in size if isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= MOST_SIDE]
    if len(size) != 3 or len(sides) != 3:
        return f"three numbers from 1 to {MOST_SIDE} are needed: channels, height and width"
    if math.prod(sides) > MOST_INPUT:
        return f"{' x '.join(map(str, sides))} are {math.prod(sides)} numbers, above {MOST_INPUT}"
    return ""


def inputs_fault(shapes: Mapping[str, object]) -> str:
    """Why these are no inputs of a model, in words; empty if they are. Each shape is that of one example."""
    if not shapes:
        return "a model takes one input at least"
    sizes: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        numbers = list(shape) if isinstance(shape, tuple | list) else []
        sizes[name] = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and n > 0]
        if not numbers or len(sizes[name]) < len(numbers):
            return f"the shape of {name}, {shape!r}, is not whole numbers from 1, as (3, 32, 32)"
    return _sizes_fault(sizes)


def _sizes_fault(shapes: Mapping[str, Sequence[int]]) -> str:
    if len(shapes) > MOST_INPUTS:
        return f"{len(shapes)} inputs, above {MOST_INPUTS}"
    if odd := [name for name in shapes if not name.isidentifier()]:
        return f"{odd[0]!r} is no name of an argument"
    if empty := [name for name, shape in shapes.items() if not 1 <= len(shape) <= MOST_AXES]:
        return f"{empty[0]} has {len(shapes[empty[0]])} axes; 1 to {MOST_AXES} are needed, the batch left out"
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return f"{numbers} numbers together, above {MOST_INPUT}" if numbers > MOST_INPUT else ""


def _affordable(size: tuple[int, int, int]) -> tuple[int, int, int]:
    if fault := input_size_fault(size):
        raise ValueError(fault)
    return size


InputSize = Annotated[tuple[Side, Side, Side], AfterValidator(_affordable)]  # channels, height, width


def _only_false(value: Any) -> Any:
    if value is not False:  # pydantic takes 0 for it, and a drop of 0 is a gate
        raise ValueError("or false")
    return value


Off = Annotated[Literal[False], BeforeValidator(_only_false)]
Share = Annotated[float, Field(ge=0, le=1)]
Drop = Annotated[float, Field(gt=-1, lt=1)]  # below 0: better than before
MOST_EPOCHS, MOST_IMAGES, MOST_WIDTH, MOST_MINUTES = 100_000, 10**9, 1 << 16, 10**6


class Section(BaseModel):
    """A table of the recipe: frozen, and strict about its keys and about what is a number, a text or a switch."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_other_kind(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take true for 1, "5" for 5 and "no" for false."""
        why = why_another_kind(value, cls.model_fields[info.field_name or ""].annotation)
        if why:
            raise ValueError(why)
        return value
