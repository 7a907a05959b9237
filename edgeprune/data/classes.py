"""Class names and their order: what tells which of a model's outputs a name stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable


def text_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted as text, as torchvision's ImageFolder has it: 1, 10, 2."""
    return tuple(sorted(names))


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names sorted with the numbers in them as numbers and without regard to case, as timm has it: 1, 2, 10."""
    return tuple(sorted(sorted(names), key=_natural))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Words and numbers in turn; a number counts by its length, then its digits, so that none is too long."""
    parts = re.split(r"([0-9]+)", name.lower())
    parts[1::2] = [part.lstrip("0") for part in parts[1::2]]
    return [(0, len(part), part) if place % 2 else (1, 0, part) for place, part in enumerate(parts)]
