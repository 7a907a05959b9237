"""What a device and its runtime were like when something was measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgeprune.records import Record

RuntimeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)]  # see runtimes.py
ComputeUnits = Literal["ALL", "CPU_AND_GPU", "CPU_AND_NE", "CPU_ONLY"]  # where Core ML may run; coremltools' names


class Conditions(Record):
    """What the device was like at one moment; None where it does not tell."""

    time: float
    clock_s: float | None = None  # of a clock that does not jump
    load_1min: float | None = None
    running: int | None = None  # tasks that run or want to
    cpu_steal_s: float | None = None
    cpu_busy_s: float | None = None  # worked by all cores for anybody
    cpus: int | None = None  # of the machine, whose work `cpu_busy_s` and `cpu_steal_s` count
    own_s: float | None = None  # worked for the measuring process
    frequency_mhz: tuple[float, ...] = ()
    temperature_c: dict[str, float] = Field(default_factory=dict)
    battery_percent: int | None = None
    charging: bool | None = None
    screen_on: bool | None = None
    thermal_status: int | None = None  # Android's: 0 none, 1 light, 2 moderate, 3 severe, ...; of an iPhone 0, 1, 3, 4
    low_power: bool | None = None  # an iPhone's low power mode


class RuntimeBuild(Record):
    """A runtime as it is on the device; a latency table is valid for one build only."""

    name: RuntimeName
    version: str
    sha256: str  # of the native library that runs the kernels
    compute_units: ComputeUnits = "ALL"  # Core ML's; a latency is of these

    @property
    def id(self) -> str:
        where = "" if self.compute_units == "ALL" else f"-{self.compute_units}"
        return f"{self.name}-{self.version}-{self.sha256[:12]}{where}"
