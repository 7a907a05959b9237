"""What a device and its runtime were like when something was measured."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

RuntimeName = Literal["litert", "executorch", "onnxruntime"]


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
    name: RuntimeName
    version: str
    sha256: str  # of the native library that runs the kernels

    @property
    def id(self) -> str:
        return f"{self.name}-{self.version}-{self.sha256[:12]}"
