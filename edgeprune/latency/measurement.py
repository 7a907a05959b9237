"""A measurement: raw samples, conditions, the runtime's build, and how far it can be trusted. Never a bare number."""

from __future__ import annotations

from statistics import fmean
from typing import Literal

from pydantic import computed_field

from edgeprune.devices.conditions import Conditions, RuntimeBuild
from edgeprune.records import Record

__all__ = ["Conditions", "Measurement", "ModelRun", "Quality", "Ratio", "RuntimeBuild"]

Quality = Literal["stable", "noisy", "throttled"]


class Measurement(Record):
    """Latency of one file on one device. All times are seconds for one inference."""

    file: str
    device: str  # fingerprint
    runtime: RuntimeBuild
    threads: int
    samples_s: tuple[float, ...]
    median_s: float
    p90_s: float
    low_s: float  # 95 % bootstrap interval of the median
    high_s: float
    quality: Quality
    evidence: str  # why that quality, in words
    before: Conditions
    after: Conditions
    during: tuple[Conditions, ...] = ()
    peak_memory_bytes: int | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def least_s(self) -> float:
        """The fastest sample."""
        return min(self.samples_s)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def trimmed_mean_s(self) -> float:
        """The mean without the fastest and the slowest tenth."""
        ordered = sorted(self.samples_s)
        cut = len(ordered) // 10
        return fmean(ordered[cut : len(ordered) - cut])


class Ratio(Record):
    """Latency of A over latency of B, from interleaved pairs, with a 95 % bootstrap interval."""

    ratio: float
    low: float
    high: float
    quality: Quality
    evidence: str
    numerator: Measurement
    denominator: Measurement


class ModelRun(Record):
    """A whole model: by itself, and what each of its layers took under the runtime's profiler, in seconds."""

    base: str  # key of the unpruned model
    measurement: Measurement  # of the model by itself
    before_s: float  # kernels ahead of the first layer
    layers: tuple[tuple[str, str, float], ...]  # name, key of the operation in its place, seconds

    @property
    def sum_s(self) -> float:
        """All kernels."""
        return self.before_s + sum(seconds for _, _, seconds in self.layers)
