"""A measurement: raw samples, conditions, the runtime's build, and how far it can be trusted. Never a bare number."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Quality = Literal["stable", "noisy", "throttled"]


class Conditions(BaseModel):
    """What the device was like at one moment; None where it does not tell."""

    model_config = ConfigDict(frozen=True)
    time: float
    load_1min: float | None = None
    cpu_steal_s: float | None = None
    frequency_mhz: tuple[float, ...] = ()
    temperature_c: dict[str, float] = {}


class RuntimeBuild(BaseModel):
    """A runtime as it is on the device; a latency table is valid for one build only."""

    model_config = ConfigDict(frozen=True)
    name: Literal["litert", "executorch", "onnxruntime"]
    version: str
    sha256: str  # of the native library that runs the kernels

    @property
    def id(self) -> str:
        return f"{self.name}-{self.version}-{self.sha256[:12]}"


class Measurement(BaseModel):
    """Latency of one file on one device. All times are seconds for one inference."""

    model_config = ConfigDict(frozen=True)
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
    peak_memory_bytes: int | None = None


class Ratio(BaseModel):
    """Latency of A over latency of B, from interleaved pairs, with a 95 % bootstrap interval."""

    model_config = ConfigDict(frozen=True)
    ratio: float
    low: float
    high: float
    quality: Quality
    evidence: str
    numerator: Measurement
    denominator: Measurement
