"""The verdict: what was checked, the figure, the limit, pass or fail, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeprune.errors import DeviceError, GateFailed, UsageError
from edgeprune.latency.measurement import Measurement, Ratio
from edgeprune.latency.profile import Profile
from edgeprune.metric import ACCURACY, Metric
from edgeprune.recipe import Format, Precision
from edgeprune.records import Record

Outcome = Literal["pass", "fail", "undecided", "info"]
Between = tuple[float, float]  # a 95 % interval

# JSON has no infinity, and the SQNR of equal outputs is infinite: it is written as "Infinity" and read back as such.
_CONFIG = ConfigDict(frozen=True, ser_json_inf_nan="strings")


NOWHERE = "nowhere"  # in `executed_on`: no runner knows the file's kind
NO_DEVICE = "no device"  # in `executed_on`: the file ran in the reference executor, or on this machine instead
SIZE = "file size"  # the name of the check of it
NEVER_RUN = "run"  # the name of the check that says so
HOST_AGREEMENT = "agreement with this machine"  # the name of that check


class Check(BaseModel):
    """One figure held against its limit; `info` where the recipe sets none.

    `undecided`: of so few images that they cannot tell. `interval` is the 95 % interval of a figure that is one of a
    sample of images. `uncertain` marks a missed limit that was measured too badly to count as a regression (see
    `exit_code`).
    """

    model_config = _CONFIG
    name: str
    value: float
    unit: str
    limit: float | None
    outcome: Outcome
    why: str
    uncertain: bool = False
    interval: Between | None = None


class FileVerdict(BaseModel):
    """Everything checked of one exported file."""

    model_config = _CONFIG
    file: str
    format: Format
    precision: Precision
    executed_on: str  # device id and runtime, or "reference execution, no device"
    checks: tuple[Check, ...]
    latency: Measurement | None = None
    against_original: Ratio | None = None
    profile: Profile | None = None  # of its kernels, where the runtime tells them

    @property
    def outcome(self) -> Outcome:
        return _worst(check.outcome for check in self.checks)

    @property
    def passes(self) -> bool:
        """Whether it was run, at least one gate was held on it, and all that were held."""
        passed = any(check.outcome == "pass" for check in self.checks)
        return self.outcome == "pass" and passed and self.executed_on != NOWHERE

    @property
    def parts_from_host(self) -> bool:
        """Whether an attached device names other classes than this machine for more images than the limit allows."""
        return any(c.name == HOST_AGREEMENT and c.outcome == "fail" for c in self.checks)


class Missing(Record):
    """A file that was asked for and could not be written."""

    file: str
    format: Format
    precision: Precision
    why: str

    @property
    def verdict(self) -> FileVerdict:
        """It fails: whoever asked for the file does not have it."""
        check = Check(name="written", value=0, unit="files", limit=1, outcome="fail", why=f"not written: {self.why}")
        return FileVerdict(
            file=self.file,
            format=self.format,
            precision=self.precision,
            executed_on="not written",
            checks=(check,),
        )


class Slower(Record):
    """An int8 file that is surely slower than a float file of its runtime and format; `ratio` is of their latencies,
    with its 95 % interval."""

    file: str
    than: str
    seconds: float
    than_seconds: float
    ratio: float
    low: float
    high: float

    @property
    def words(self) -> str:
        """In words, without a full stop."""
        return (
            f"int8 is slower here: {self.seconds * 1e3:.3f} ms against {self.than_seconds * 1e3:.3f} ms, "
            f"{self.ratio:.2f}x ({self.low:.2f}-{self.high:.2f}): {self.file} against {self.than}"
        )


class Shipping(Record):
    """Which file of a runtime to ship, and why; no file where none passes."""

    runtime: str
    file: str | None
    why: str
    slower: tuple[Slower, ...] = ()

    @property
    def words(self) -> str:
        """In words, without a full stop."""
        return f"{self.runtime}: {f'ship {self.file}' if self.file else 'no file to ship'}: {self.why}"


class Verdict(BaseModel):
    """The verdict of a run."""

    model_config = _CONFIG
    version: Literal[1] = 1
    device: str
    test_images: int
    metric: Metric = ACCURACY
    accuracy: dict[str, float]  # stage -> the metric on the test split: original, pruned, tuned, merged
    accuracy_intervals: dict[str, Between] = {}
    changes: dict[str, Between] = {}  # stage -> how much better than the original's, on the same images
    files: tuple[FileVerdict, ...]
    shipping: tuple[Shipping, ...] = ()  # one for each runtime; none in verdicts of before

    @property
    def outcome(self) -> Outcome:
        return _worst(file.outcome for file in self.files)


def exit_code(verdict: Verdict) -> int:
    """0 when everything passed, 1 when a gate failed, 4 when no more was missing than a quiet device or more images."""
    checks = [check for file in verdict.files for check in file.checks]
    if any(check.outcome == "fail" and not check.uncertain for check in checks):
        return GateFailed.exit_code
    untold = any(check.outcome in ("fail", "undecided") for check in checks)
    return DeviceError.exit_code if untold else 0


def worst_code(codes: Iterable[int]) -> int:
    """The exit code of several jobs: a failed gate is not hidden by what was refused, nor that by what is undecided."""
    return min(codes, key=(GateFailed.exit_code, UsageError.exit_code, DeviceError.exit_code, 0).index)


def _worst(outcomes: Iterable[Outcome]) -> Outcome:
    found = set(outcomes)
    if "fail" in found:
        return "fail"
    return "undecided" if "undecided" in found else "pass"
