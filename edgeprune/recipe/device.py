"""[device]: where and how latency is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeprune.recipe.section import (
    MOST_MINUTES,
    Runtime,
    Section,
)


class DeviceSection(Section):
    """Where and how latency is measured. `wait_minutes`: for how long another job's measuring is waited for."""

    id: str = Field(default="local", pattern=r"\S")
    runtime: Runtime = "litert"
    threads: int = Field(default=1, ge=1, le=1024)
    protocol: Literal["quick", "standard", "mlperf"] = "quick"
    wait_minutes: float = Field(default=0.0, ge=0, le=MOST_MINUTES)
