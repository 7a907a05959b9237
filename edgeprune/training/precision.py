"""The precision that a processor really computes in, whatever was asked for.

A CPU without instructions for bfloat16 converts every number before and after each operation: training is several
times slower there than in float32, and not better. So what is asked for is held against the processor first.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from edgeprune.recipe import Computing

Ran = Literal["fp32", "bf16", "fp16"]
CPUINFO = Path("/proc/cpuinfo")
NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's; the kernel names them in /proc/cpuinfo
CPU = torch.device("cpu")
_TYPES: dict[Ran, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Running:
    """What runs. `why`: in words, why it is not what was asked for; empty where it is."""

    precision: Ran
    why: str = ""

    @property
    def dtype(self) -> torch.dtype | None:
        """Of autocast; None without."""
        return _TYPES[self.precision]

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context in which operations run in this precision; the weights stay float32."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype is not None)


def running(asked: Computing, device: torch.device = CPU) -> Running:
    """What runs where this precision is asked for: fp32 where the processor does not compute in it."""
    if asked == "fp32":
        return Running("fp32")
    name, lacks = _lacking("bf16" if asked == "auto" else asked, device)
    if asked == "auto":
        return Running("fp32" if lacks else "bf16")
    if lacks:
        return Running("fp32", f"{asked} was asked for, and {lacks}: fp32 is faster there, and runs instead")
    return Running(name)


def _lacking(asked: Literal["bf16", "fp16"], device: torch.device) -> tuple[Ran, str]:
    """The precision, and what of the processor speaks against it; empty where nothing does."""
    if device.type == "cuda":
        if asked == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return asked, f"{torch.cuda.get_device_name(device)} has no instructions for it"
        return asked, ""
    if asked == "fp16":
        return asked, "it is for GPUs (here a CPU computes)"
    flags = processor_flags()
    if flags is None:
        return asked, f"nothing tells whether this processor has instructions for it ({CPUINFO} is not there)"
    return asked, "" if flags & NATIVE_BF16 else f"{_processor()} has no instructions for it"


def processor_flags() -> frozenset[str] | None:
    """What the kernel says that this machine's CPU can do (`flags`, on ARM `Features`); None where it does not say."""
    if not CPUINFO.is_file():
        return None
    keys = ("flags", "Features")
    lines = (line.partition(":") for line in CPUINFO.read_text(errors="replace").splitlines())
    return next((frozenset(value.split()) for key, _, value in lines if key.strip() in keys), None)


def _processor() -> str:
    lines = (line.partition(":") for line in CPUINFO.read_text(errors="replace").splitlines())
    name = next((value.strip() for key, _, value in lines if key.strip() == "model name"), "")
    return f"this CPU ({name or platform.machine()})"
