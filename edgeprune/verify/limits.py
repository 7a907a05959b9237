"""Holding a figure against its gate."""

from __future__ import annotations

from typing import Literal

from edgeprune.verify.verdict import Check

Gate = float | Literal[False] | None  # None: no gate applies here; False: the recipe switched it off

ROUNDING = 1e-9  # 5 images of 1000 are a drop of 0.005, not of 0.0050000000000000044


def at_least(name: str, value: float, gate: Gate, *, unit: str, why: str) -> Check:
    """A check that passes when the value reaches the gate; a gate of None or False makes it `info`."""
    if gate is None or gate is False:
        return ungated(name, value, gate, unit, why)
    return _gated(name, value, gate, unit, why, passed=value >= gate - ROUNDING)


def at_most(name: str, value: float, gate: Gate, *, unit: str, why: str) -> Check:
    """A check that passes when the value does not exceed the gate; a gate of None or False makes it `info`."""
    if gate is None or gate is False:
        return ungated(name, value, gate, unit, why)
    return _gated(name, value, gate, unit, why, passed=value <= gate + ROUNDING)


def info(name: str, value: float, *, unit: str, why: str) -> Check:
    """A figure that nothing is held against."""
    return Check(name=name, value=value, unit=unit, limit=None, outcome="info", why=why)


def _gated(name: str, value: float, gate: float, unit: str, why: str, *, passed: bool) -> Check:
    return Check(name=name, value=value, unit=unit, limit=gate, outcome="pass" if passed else "fail", why=why)


def ungated(name: str, value: float, gate: Literal[False] | None, unit: str, why: str) -> Check:
    """A figure that no gate applies to, or whose gate the recipe switched off."""
    return info(name, value, unit=unit, why=why if gate is None else f"{why}; the recipe sets no gate")
