"""How a computer reaches an iPhone or iPad: the little that devicectl and pymobiledevice3 have in common.

Neither gives a shell. Both list devices and apps, copy files into and out of an app's container, start an app with its
console attached, and end it. Paths there are relative to the container.
"""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.devices.child import last_lines
from edgeprune.errors import DeviceError

LIST_S = 20.0
SHORT_S = 60.0  # a tunnel may have to be made first
SLOWEST = 100_000  # bytes a second; slower than this a transfer is given up
OLDEST = 17  # iOS: the first whose apps both tools can start with a console
TOO_OLD = f"iOS {OLDEST} or newer is needed to start apps on it from a computer"


@dataclass(frozen=True)
class SeenPhone:
    """A device as a tool lists it: `model` is Apple's identifier (iPhone16,1); `reason` says why it is not ready."""

    udid: str
    model: str
    os: str  # iOS 18.1
    reason: str = ""

    @property
    def version(self) -> str:
        return self.os.rpartition(" ")[2]


class PhoneLink(ABC):
    """One tool's way to one device. Every method raises DeviceError with what the tool said."""

    def __init__(self, udid: str) -> None:
        self.udid = udid

    @property
    def id(self) -> str:
        return f"apple:{self.udid}"

    @classmethod
    @abstractmethod
    def seen(cls) -> list[SeenPhone]:
        """The devices that the tool lists."""

    @abstractmethod
    def apps(self) -> dict[str, str]:
        """Bundle identifier -> CFBundleVersion of the apps that developers have put on it."""

    @abstractmethod
    def send(self, app: str, files: Mapping[str, Path]) -> None:
        """Copy files into an app's container, by their paths there; what is there is replaced."""

    @abstractmethod
    def fetch(self, app: str, remote: str, local: Path) -> None:
        """Copy a file out of an app's container."""

    @abstractmethod
    def console(self, app: str, arguments: Sequence[str]) -> list[str]:
        """The command that starts an app, ends one that runs already, and shows its console until it ends."""

    @abstractmethod
    def end(self, executable: str) -> None:
        """End what runs of a program (`/NAME.app/NAME`); nothing is no error."""

    def install_command(self, app: str) -> str:
        """What the user types to put a built app (a folder NAME.app) on the device."""
        return f"xcrun devicectl device install app --device {self.udid} {app}"

    def asked(self, argv: Sequence[str], *, step: str, timeout_s: float = SHORT_S) -> str:
        """What a short command of the tool answers on stdout.

        Raises:
            DeviceError: it failed or did not end in time; with its last words.
        """
        try:
            done = subprocess.run(
                list(argv), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{step}: no answer within {timeout_s:g} s", where=self.id, hint=CHECK) from None
        except OSError as error:
            raise DeviceError(f"{step}: {error}", where=self.id, hint="see `edgeprune doctor`") from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
            raise DeviceError(
                f"{step}: {last_lines(said, 3) or f'exit code {done.returncode}'}", where=self.id, hint=CHECK
            )
        return done.stdout.decode(errors="replace")


CHECK = "check the cable, and that the device is unlocked and trusts this computer"


def transfer_s(size: int) -> float:
    """How long a transfer may take."""
    return SHORT_S + size / SLOWEST


def too_old(version: str) -> bool:
    """Whether a version of iOS is older than what is needed; one that is not told is not."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) < OLDEST


def member(tree: Any, *names: str) -> Any:
    """A member of a tree of dictionaries; None where one of them is not there."""
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
