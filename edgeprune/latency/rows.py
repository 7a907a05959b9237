"""Rows of a latency table, and which of them cannot have been measured."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeprune.graph.operations import Kind, OpSignature
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.staircase import Staircase
from edgeprune.recipe import Precision
from edgeprune.records import first_fault

LONGEST_S = 3600.0  # of one inference: what takes hours was not measured
LATEST = 1e11  # seconds since 1970
LONGEST_KEY = 1000
SLACK = 1 + 1e-6  # between figures of one measurement, which were rounded on the way
RowKind = Literal["operations", "unsupported", "models", "staircases"]


@dataclass(frozen=True)
class Setting:
    """What a row is valid for: device fingerprint, runtime build id, threads, precision of the files that ran. Another
    build is another setting."""

    device: str
    build: str
    threads: int
    precision: Precision = "fp32"

    @property
    def words(self) -> str:
        """All but the device."""
        return f"{self.build}, {self.precision}, {self.threads} thread{'' if self.threads == 1 else 's'}"


class Row(BaseModel):
    """One row, as it is carried from table to table; `value` as it stands there (JSON, or a reason)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    kind: RowKind
    device: str
    build: str
    threads: int
    precision: Precision = "fp32"  # rows of before tables knew it are of float files
    key: str
    value: str

    @property
    def setting(self) -> Setting:
        return Setting(self.device, self.build, self.threads, self.precision)

    @property
    def place(self) -> tuple[str, Setting, str]:
        """What makes it the same row."""
        return self.kind, self.setting, self.key


def fault_of(row: Row) -> str:
    """Why a row cannot be what somebody measured; empty if it can."""
    try:
        if not 0 < row.threads < 1 << 20:
            return f"{row.threads} threads"
        if row.kind in ("operations", "unsupported"):
            parse_key(row.key)
        if row.kind == "operations":
            read_measurement(row.value)
        elif row.kind == "models":
            read_run(row.value)
        elif row.kind == "staircases":
            read_staircase(row.value)
    except ValidationError as error:
        return first_fault(error)
    except ValueError as error:
        return str(error)
    return ""


def read_measurement(text: str) -> Measurement:
    """A measurement of its JSON.

    Raises:
        ValueError: it is none, or cannot have been measured.
    """
    found = Measurement.model_validate_json(text)
    _check_measurement(found)
    return found


def read_run(text: str) -> ModelRun:
    """A run of a whole model of its JSON.

    Raises:
        ValueError: it is none, or cannot have been measured.
    """
    found = ModelRun.model_validate_json(text)
    _check_measurement(found.measurement)
    for name, key, seconds in (("what comes before", "", found.before_s), *found.layers):
        if not 0 <= seconds < LONGEST_S:
            raise ValueError(f"the layer {name[:100]!r} takes {seconds} s")
        if key:
            parse_key(key)
    return found


def read_staircase(text: str) -> Staircase:
    """A staircase of its JSON.

    Raises:
        ValueError: it is none.
    """
    found = Staircase.model_validate_json(text)
    widths = found.channels
    rising = len(widths) >= 2 and widths[0] > 0 and all(a < b for a, b in pairwise(widths))
    if not rising or len(found.effective) != len(widths) or not 0 < found.step < 1 << 20:
        raise ValueError("a staircase without steps")
    if widths[-1] >= 1 << 20 or not all(0 <= cost < 1 << 30 for cost in found.effective):
        raise ValueError("a staircase of costs that cannot be")
    return found


def _check_measurement(found: Measurement) -> None:
    seconds = (*found.samples_s, found.median_s, found.p90_s, found.low_s, found.high_s)
    if not found.samples_s or not all(0 < one < LONGEST_S for one in seconds):
        raise ValueError("times that cannot be: each is above 0 and below an hour, and there is one at least")
    least, most = min(found.samples_s) / SLACK, max(found.samples_s) * SLACK
    if not (least <= found.median_s <= most and least <= found.p90_s <= most):
        raise ValueError("a median that is not among its samples")
    if not found.low_s / SLACK <= found.median_s <= found.high_s * SLACK:
        raise ValueError("a median outside of its interval")
    if not 0 < found.threads < 1 << 20 or not 0 <= found.after.time < LATEST or not 0 <= found.before.time < LATEST:
        raise ValueError("a number of threads or a date that cannot be")


@lru_cache(maxsize=65536)
def parse_key(key: str) -> OpSignature:
    """The operation of a key, the inverse of `OpSignature.key`.

    Raises:
        ValueError: it is no key.
    """
    if len(key) > LONGEST_KEY:
        raise ValueError("its key is no operation: too long")
    try:
        parts = dict(part.split("=", 1) for part in key.split(";"))
        kind, function, place = cast(Kind, parts.pop("kind")), parts.pop("function"), parts.pop("place", "")
        values = {name: ast.literal_eval(text) for name, text in parts.items()}
        found = OpSignature(kind=kind, function=function, place=place, **values)
        sound = kind in get_args(Kind) and all(_fits(getattr(found, field.name), field.type) for field in fields(found))
        sound = sound and found.groups > 0 and min(found.stride) > 0
    except (ValueError, KeyError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"its key is no operation ({type(error).__name__})") from error
    if not sound:
        raise ValueError("its key is no operation")
    return found


def _fits(value: object, kind: object) -> bool:
    """Whether a field of an operation has a value of its type, and a size that can be."""
    if kind in ("int", "bool"):
        return type(value).__name__ == kind and 0 <= int(cast(int, value)) < 1 << 31
    if kind == "tuple[int, int]":
        return isinstance(value, tuple) and len(value) == 2 and all(_fits(one, "int") for one in value)
    return isinstance(value, str)


def is_time(seconds: object) -> bool:
    """Whether a number from the table is a time that can have been measured."""
    return isinstance(seconds, float | int) and math.isfinite(seconds) and 0 < seconds < LONGEST_S
