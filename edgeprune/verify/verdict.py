"""The verdict: what was checked, the figure, the limit, pass or fail, and why."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeprune.latency.measurement import Measurement, Ratio
from edgeprune.recipe import Format, Precision

Outcome = Literal["pass", "fail", "info"]


class Check(BaseModel):
    """One figure held against its limit; `info` where the recipe sets no gate."""

    model_config = ConfigDict(frozen=True)
    name: str
    value: float
    unit: str
    limit: float | None
    outcome: Outcome
    why: str


class FileVerdict(BaseModel):
    """Everything checked of one exported file."""

    model_config = ConfigDict(frozen=True)
    file: str
    format: Format
    precision: Precision
    executed_on: str  # device id and runtime, or "reference execution, no device"
    checks: tuple[Check, ...]
    latency: Measurement | None = None
    against_original: Ratio | None = None

    @property
    def outcome(self) -> Outcome:
        return "fail" if any(c.outcome == "fail" for c in self.checks) else "pass"


class Verdict(BaseModel):
    """The verdict of a run."""

    model_config = ConfigDict(frozen=True)
    version: Literal[1] = 1
    device: str
    test_images: int
    accuracy: dict[str, float]  # stage -> top-1 on the test split: original, pruned, tuned, merged
    files: tuple[FileVerdict, ...]

    @property
    def outcome(self) -> Outcome:
        return "fail" if any(f.outcome == "fail" for f in self.files) else "pass"
