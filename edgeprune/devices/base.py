"""The one device interface: what local, ssh, adb and apple devices all can do. No torch here."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from edgeprune.devices.conditions import Conditions
from edgeprune.errors import DeviceError
from edgeprune.records import Record

RunnerKind = Literal["python", "native", "app"]
LITTLE = 16 << 10  # bytes; to look whether so little is there takes longer than to send it


class DeviceFacts(Record):
    """What a device is."""

    id: str
    kind: str  # local, ssh, adb, apple
    model: str
    soc: str = ""
    cpu: str
    abi: str  # x86_64, aarch64, ...
    os: str
    cores: int = Field(ge=1, lt=1 << 20)
    memory_bytes: int = Field(ge=0, lt=1 << 60)
    cpu_features: tuple[str, ...] = ()
    runtimes: dict[str, str] = Field(default_factory=dict)  # runtime name -> version that can run there
    runners: dict[str, RunnerKind] = Field(default_factory=dict)  # runtime name -> what runs it there
    python: str = ""  # the interpreter that the Python runner is started with; empty: none
    temperature_c: float | None = None  # the hottest part, when it was looked at
    ready: bool = True
    reason: str = ""  # why it is not ready
    fix: str = ""  # what to do about it, where that is a command

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
    """A finished command on the device. `exit_code` is negative for a signal."""

    exit_code: int
    stderr_tail: str


class Device(ABC):
    """A machine that files can be put on and run on. Paths on the device are relative to its work folder.

    Every method raises DeviceError (exit code 4) that names the device and the step when the device is lost
    (DeviceLost where it may come back).
    """

    poll_s: ClassVar = 0.5  # between two looks for a device that was lost

    @property
    @abstractmethod
    def id(self) -> str: ...

    @abstractmethod
    def facts(self) -> DeviceFacts: ...

    @abstractmethod
    def conditions(self) -> Conditions:
        """What it is like now: load, clock, temperature, battery."""

    @abstractmethod
    def push_all(self, files: Mapping[str, Path]) -> None:
        """Copy files there, by their paths there; each is checked, and skipped when the same content is there."""

    @abstractmethod
    def path(self, remote: str) -> str:
        """The absolute path there of a file in the work folder."""

    def push(self, local: Path, remote: str) -> str:
        """Copy one file there; returns its absolute path on the device."""
        self.push_all({remote: local})
        return self.path(remote)

    @abstractmethod
    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from there; `local` is replaced in one step."""

    @abstractmethod
    def remove(self, remote: str, *, wait: bool = True) -> None:
        """Remove a file or folder there or, where `remote` ends with a star, all whose names begin so; nothing there is
        no error. `wait`: until they are gone; otherwise it goes on while others work, and should the connection break
        off, they are removed some days later."""

    @abstractmethod
    def clean(self) -> None:
        """Remove everything that edgeprune keeps there."""

    @abstractmethod
    def free_bytes(self) -> int:
        """What is left for files in the work folder."""

    @abstractmethod
    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        on_line: Callable[[str], None],
    ) -> Completed:
        """Run a program in the work folder; each line of its stdout goes to `on_line` as it comes.

        It is ended, on the device, when the time is up, when `on_line` raises, or when the caller is interrupted.
        """

    @abstractmethod
    def lease(self, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
        """Hold the device so that two jobs never measure on it at once; freed when the holder dies."""

    def reconnect(self, *, wait_s: float) -> None:
        """Wait until a device that was lost answers again.

        Raises:
            DeviceError: it does not within `wait_s` seconds; says why.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return self._look_again()
            except DeviceError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(self.poll_s)

    def _look_again(self) -> None:  # noqa: B027  # most devices have nothing to do
        """Take up the connection to a device that was lost; raises DeviceError while it cannot be reached."""

    def close(self) -> None:  # noqa: B027
        """Let go of connections; the device can be used again afterwards."""
