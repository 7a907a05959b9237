"""The schema of a device profile."""

from __future__ import annotations

import re
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

FACTS = (
    *("channel_multiple", "channel_multiple_int8", "minimum_width", "preferred_runtime"),
    *("clusters", "cpu_affinity", "thermal_limit_c"),
)


class Facts(Protocol):
    """What a device says of itself; `edgeprune.devices.base.DeviceFacts` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def soc(self) -> str: ...
    @property
    def cpu(self) -> str: ...
    @property
    def abi(self) -> str: ...
    @property
    def os(self) -> str: ...


class Match(BaseModel):
    """Regular expressions that must be found in the device's facts, without regard to case; empty ones fit all."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str = ""
    model: str = ""  # ro.product.model, /proc/device-tree/model, Apple's identifier (iPhone16,1)
    soc: str = ""  # ro.soc.model, /proc/device-tree/compatible
    cpu: str = ""
    abi: str = ""
    os: str = ""

    @field_validator("*")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    @property
    def weight(self) -> int:
        """How specific it is."""
        return sum(bool(pattern) for pattern in self.model_dump().values())

    def fits(self, facts: Facts) -> bool:
        return all(
            re.search(pattern, getattr(facts, name), re.IGNORECASE) for name, pattern in self.model_dump().items()
        )


class Cluster(BaseModel):
    """Cores that are alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    core: str = Field(min_length=1)  # Cortex-A76
    cores: tuple[int, ...]  # their numbers; empty: not known
    count: int = Field(ge=1)
    dot_product: bool  # instructions that int8 kernels are several times faster with
    max_mhz: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _counted(self) -> Cluster:
        if self.cores and len(set(self.cores)) != self.count:
            raise ValueError(f"{self.count} cores of {self.core} are said, {len(set(self.cores))} numbered")
        return self


class TypicalTable(BaseModel):
    """Latencies of whole models that were measured on one such device, for planning without one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    file: str = Field(min_length=1)  # of `edgeprune table export`, from the profile's own folder
    models: tuple[str, ...] = Field(min_length=1)  # what it was probed for, in words that a user knows them by
    source: str = Field(min_length=1)  # where and how it was measured


class DeviceProfile(BaseModel):
    """What is known of a kind of device, each fact with its source ("not measured" where it is an assumption)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1]
    name: str = Field(min_length=1)
    match: Match
    channel_multiple: int = Field(ge=1)  # widths are pruned to multiples of this (float32 kernels)
    channel_multiple_int8: int = Field(ge=1)
    minimum_width: int = Field(ge=1)  # no layer gets narrower
    preferred_runtime: Literal["litert", "executorch", "onnxruntime", "coreml"]
    clusters: tuple[Cluster, ...] = ()  # empty: not known
    cpu_affinity: tuple[int, ...] = ()  # cores to measure on; empty: the scheduler's choice
    thermal_limit_c: float | None = Field(default=None, gt=0)  # above it the clock falls; None: not known
    sources: dict[str, str]
    tables: tuple[TypicalTable, ...] = ()

    @model_validator(mode="after")
    def _sourced(self) -> DeviceProfile:
        numbers = [number for cluster in self.clusters for number in cluster.cores]
        if len(numbers) != len(set(numbers)):
            raise ValueError("a core belongs to two clusters")
        if numbers and not set(self.cpu_affinity) <= set(numbers):
            raise ValueError(f"cpu_affinity names cores outside the clusters: {self.cpu_affinity}")
        missing = [name for name in FACTS if not self.sources.get(name, "").strip()]
        if missing:
            raise ValueError(f"sources are missing for {', '.join(missing)} (write where from, or `not measured`)")
        if unknown := sorted(set(self.sources) - set(FACTS)):
            raise ValueError(f"sources name unknown facts: {', '.join(unknown)}")
        return self
