"""What kind of value a key takes: a number, a text or a switch. None of them is taken for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

_WORDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", Path: "a path"}


def why_another_kind(value: Any, annotation: Any) -> str:
    """Why a value is of another kind than its key takes; empty where it may be.

    Only numbers, texts and switches are looked at, alone or in a list: the rest is the model's to judge.
    """
    if isinstance(value, list | tuple):
        return next((why for one in value if (why := why_another_kind(one, annotation))), "")
    kind = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    kinds, literals = _taken(annotation)
    if kind is None or not (kinds or literals) or any(_is(value, one) for one in literals):
        return ""
    if kind in kinds or (kind is int and float in kinds) or (kind is float and int in kinds):
        return ""  # whether 1.5 is whole is the model's to say
    if kind is str and Path in kinds:
        return ""
    if literals and kind is not bool and any(isinstance(one, kind) for one in literals):
        return ""  # another one of a choice, whose error names all of them
    words = dict.fromkeys([_WORDS[one] for one in kinds] + [_written(one) for one in literals])
    return f"it takes {' or '.join(words)}"


def _taken(annotation: Any) -> tuple[set[type], list[Any]]:
    """The kinds of values and the single values that an annotation has in it; nothing of what may be anything."""
    if annotation in _WORDS:
        return {annotation}, []
    if get_origin(annotation) is Literal:
        return set(), list(get_args(annotation))
    if get_origin(annotation) is dict:
        return set(), []
    kinds: set[type] = set()
    literals: list[Any] = []
    for part in get_args(annotation):
        more, values = _taken(part)
        kinds |= more
        literals += values
    return kinds, literals


def _is(value: Any, literal: Any) -> bool:
    return type(value) is type(literal) and value == literal


def _written(literal: Any) -> str:
    return str(literal).lower() if isinstance(literal, bool) else str(literal)
