"""The one device interface: what local, ssh, adb and apple devices all can do. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from edgeprune.devices.conditions import Conditions


class DeviceFacts(BaseModel):
    """What a device is."""

    model_config = ConfigDict(frozen=True)
    id: str
    kind: str  # local, ssh, adb, apple
    model: str
    soc: str = ""
    cpu: str
    abi: str  # x86_64, aarch64, ...
    os: str
    cores: int
    memory_bytes: int
    cpu_features: tuple[str, ...] = ()
    runtimes: dict[str, str] = {}  # runtime name -> version that can run there
    ready: bool = True
    reason: str = ""  # why it is not ready

    @property
    def fingerprint(self) -> str:
        """Stable key of the hardware and OS for the latency table (not of the serial number)."""
        import hashlib

        text = "|".join(
            (self.kind, self.model, self.cpu, self.abi, self.os, str(self.cores), " ".join(self.cpu_features))
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Completed:
    """A finished command on the device."""

    exit_code: int
    stderr_tail: str


class Device(Protocol):
    """A machine that files can be put on and run on. Paths on the device are relative to its work folder.

    Every method raises DeviceError (exit code 4) that names the device and the step when the device is lost.
    """

    @property
    def id(self) -> str: ...

    def facts(self) -> DeviceFacts: ...

    def conditions(self) -> Conditions:
        """What it is like now: load, clock, temperature."""
        ...

    def push(self, local: Path, remote: str) -> str:
        """Copy a file there (atomic, skipped when the same content is there); returns its path on the device."""
        ...

    def pull(self, remote: str, local: Path) -> None: ...

    def remove(self, remote: str) -> None:
        """Remove a file or folder there; nothing there is no error."""
        ...

    def run_python(
        self,
        script: str,
        arguments: Sequence[str],
        *,
        timeout_s: float,
        on_line: Callable[[str], None],
    ) -> Completed:
        """Run a pushed Python script; each line of its stdout goes to `on_line` as it comes."""
        ...

    def lease(self, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Hold the device so that two jobs never measure on it at once; freed when the holder dies."""
        ...
