"""Plain values, as TOML and JSON have them: what a file of a user's may hold before anybody looks at what it means."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

DEEPEST = 32  # lists and tables in one another
MOST_VALUES = 500_000
LONGEST = 65_536  # letters of one text
SHOWN = 80


@dataclass(frozen=True)
class Unfit:
    """A value that no file may hold: where it stands, and what is wrong with it."""

    location: tuple[str, ...]
    why: str


def first_unfit(tree: Any) -> Unfit | None:
    """The first value of a tree that is none of JSON's, or is beyond every measure; None where all are fit.

    Numbers are finite and of 64 bits, texts without NUL and halves of characters, tables have texts as keys.
    """
    open_: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen = 0
    while open_:
        location, value = open_.pop()
        seen += 1
        if seen > MOST_VALUES:
            return Unfit((), f"it holds more than {MOST_VALUES} values")
        if why := _why_unfit(value):
            return Unfit(location, why)
        if not isinstance(value, Mapping | list | tuple):
            continue
        if len(location) >= DEEPEST:
            return Unfit(location[:2], f"lists and tables lie more than {DEEPEST} deep in one another")
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in items:
            if isinstance(value, Mapping) and (not isinstance(key, str) or _why_unfit(key)):
                return Unfit(location, f"{shown(key)} cannot be a key")
            open_.append(((*location, str(key)), one))
    return None


def shown(value: Any) -> str:
    """A value in a message: short, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"  # Python refuses to write the longest
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  # an object of anybody's
        return f"a {type(value).__name__} ({type(error).__name__})"
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def read_text(path: Path, *, most_bytes: int) -> str:
    """The text of a file of UTF-8, without a byte order mark; no more than so much is read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer, is no UTF-8, or its name cannot be one.
    """
    with path.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it is longer than {most_bytes} bytes")
    return content.decode("utf-8-sig")


def _why_unfit(value: Any) -> str:  # noqa: PLR0911
    if value is None or isinstance(value, bool | Mapping | list | tuple):
        return ""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if not isinstance(text, str):
            return "a path is to be a text"
        if "\0" in text:
            return f"{shown(text)} holds a NUL"
        if len(text) > LONGEST:
            return f"a text of {len(text)} letters is too long"
        return f"{shown(text)} holds half a character" if any("\ud800" <= one <= "\udfff" for one in text) else ""
    if isinstance(value, Integral):
        return "" if -(2**63) <= int(value) < 2**63 else f"{shown(int(value))} is beyond 64 bits"
    if isinstance(value, Real):
        return "" if math.isfinite(value) else f"{value} is no finite number"
    if isinstance(value, datetime.date | datetime.time):
        return f"{value} is a date or time, which nothing here takes: put it in quotes"
    return f"a {type(value).__name__} is no value of a recipe: numbers, texts, lists and tables are"
