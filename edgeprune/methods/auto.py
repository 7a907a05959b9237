"""`prune.method = "auto"`: several methods are tried, and the best is taken (`trials.py`)."""

from __future__ import annotations

from pydantic import Field

from edgeprune.methods.method import Method
from edgeprune.recipe import AUTO, MOST_MINUTES, Section


class AutoSettings(Section):
    """[prune.auto]. `minutes`: for how long methods may be tried."""

    minutes: float = Field(default=30.0, gt=0, le=MOST_MINUTES)


class Auto(Method):
    """What a recipe names. It ranks nothing itself."""

    name = AUTO
    Settings = AutoSettings
    allocators = ("judged",)
