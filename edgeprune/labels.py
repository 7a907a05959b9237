"""A model's class names as users give them: a list, or a file with one name a line (or a JSON list)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgeprune.errors import RecipeError

_MOST_BYTES = 64 << 20
_ONE_EACH = "one name for each class, as text, in the order of the model's outputs; no empty lines"


def read_labels(path: Path) -> tuple[str, ...]:
    """The names in a file, in the order of the model's outputs.

    Raises:
        RecipeError: the file is missing, is no text, or its names are not names of classes (see `check_labels`).
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError("it is too large")
        text = data.decode("utf-8-sig")
        if text.lstrip().startswith("{"):
            raise ValueError("a JSON object has no order of its own")
        names = json.loads(text) if text.lstrip().startswith("[") else [line.strip() for line in text.splitlines()]
    except (OSError, ValueError, RecursionError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RecipeError(
            f"the labels cannot be read: {'no text in UTF-8' if isinstance(error, UnicodeDecodeError) else why}",
            where=str(path),
            hint="write a text file with one class name a line, or a JSON list of names",
        ) from error
    while names and names[-1] == "":
        names.pop()
    return check_labels(names, where=str(path))


def check_labels(names: Sequence[object], *, where: str) -> tuple[str, ...]:
    """Names that tell classes apart.

    Raises:
        RecipeError: there are none, or one is empty, is no text, or is there twice.
    """
    if not names:
        raise RecipeError("there are no labels", where=where, hint="give one name for each class, in the model's order")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if not isinstance(name, str) or not name.strip() or not _is_utf8(name):
            raise RecipeError(f"label {number} is no name: {name!r}", where=where, hint=_ONE_EACH)
        if name in seen:
            raise RecipeError(f"labels {seen[name]} and {number} are the same: {name}", where=where, hint=_ONE_EACH)
        seen[name] = number
    return tuple(seen)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
