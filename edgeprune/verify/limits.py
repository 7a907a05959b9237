"""Holding a figure against its limit."""

from __future__ import annotations

from typing import Literal

from edgeprune.verify.verdict import Check

Limit = float | Literal[False] | None  # None: no limit applies here; False: the recipe switched it off

ROUNDING = 1e-9  # 5 images of 1000 are a drop of 0.005, not of 0.0050000000000000044


def at_least(name: str, value: float, limit: Limit, *, unit: str, why: str) -> Check:
    """A check that passes when the value reaches the limit; a limit of None or False makes it `info`."""
    if limit is None or limit is False:
        return unlimited(name, value, limit, unit, why)
    return _held(name, value, limit, unit, why, passed=value >= limit - ROUNDING)


def at_most(name: str, value: float, limit: Limit, *, unit: str, why: str) -> Check:
    """A check that passes when the value does not exceed the limit; a limit of None or False makes it `info`."""
    if limit is None or limit is False:
        return unlimited(name, value, limit, unit, why)
    return _held(name, value, limit, unit, why, passed=value <= limit + ROUNDING)


def info(name: str, value: float, *, unit: str, why: str) -> Check:
    """A figure that nothing is held against."""
    return Check(name=name, value=value, unit=unit, limit=None, outcome="info", why=why)


def _held(name: str, value: float, limit: float, unit: str, why: str, *, passed: bool) -> Check:
    return Check(name=name, value=value, unit=unit, limit=limit, outcome="pass" if passed else "fail", why=why)


def unlimited(name: str, value: float, limit: Literal[False] | None, unit: str, why: str) -> Check:
    """A figure that no limit applies to, or whose limit the recipe switched off."""
    return info(name, value, unit=unit, why=why if limit is None else f"{why}; the recipe sets no gate")
