"""iPhones and iPads through Xcode's devicectl, on a Mac.

Its JSON is the one output that Apple promises to keep (`devicectl help list devices`); it goes to a file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.devices.failures import understood
from edgeprune.devices.phone_link import LIST_S, SHORT_S, TOO_OLD, PhoneLink, SeenPhone, member, too_old, transfer_s
from edgeprune.errors import DeviceError

TOOL = ("xcrun", "devicectl")
# devicectl hands out an app's console at once only where it writes to a terminal.
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])) & 255)"


class Devicectl(PhoneLink):
    """A device through devicectl."""

    @classmethod
    def seen(cls) -> list[SeenPhone]:
        """The iPhones and iPads that this Mac knows; those that are not here now have that as the reason.

        Raises:
            DeviceError: the list cannot be read.
        """
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "devices.json"
            argv = [*TOOL, "list", "devices", "--json-output", str(path)]
            try:
                subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIST_S, check=False)
                devices = json.loads(path.read_text(encoding="utf-8"))["result"]["devices"]
            except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
                raise DeviceError(
                    f"devicectl's list cannot be read: {error}", where="apple", hint="is Xcode 15 or newer installed?"
                ) from error
        with understood("apple", "devicectl's list"):
            return [_seen(device) for device in devices if _is_phone(device)]

    def apps(self) -> dict[str, str]:
        """Bundle identifier -> CFBundleVersion of the apps that developers have put on it."""
        found = self._json("info", "apps", step="asking for its apps")
        with understood(self.id, "the list of its apps"):
            apps = member(found, "apps") or ()
            return {str(app["bundleIdentifier"]): str(app.get("bundleVersion", "")) for app in apps}

    def send(self, app: str, files: Mapping[str, Path]) -> None:
        """Copy files one by one; folders are made as they are needed."""
        for remote, local in files.items():
            argv = ["copy", "to", *_container(app), "--source", str(local), "--destination", remote]
            self._json(*argv, step=f"pushing {remote}", timeout_s=transfer_s(local.stat().st_size))

    def fetch(self, app: str, remote: str, local: Path) -> None:
        """Copy a file out of an app's container."""
        argv = ["copy", "from", *_container(app), "--source", remote, "--destination", str(local)]
        self._json(*argv, step=f"pulling {remote}", timeout_s=15 * SHORT_S)

    def console(self, app: str, arguments: Sequence[str]) -> list[str]:
        """devicectl at a terminal, attached to the app until it ends."""
        launch = [*TOOL, "device", "process", "launch", "--device", self.udid, "--console", "--terminate-existing"]
        return [sys.executable, "-c", TERMINAL, *launch, app, *arguments]

    def end(self, executable: str) -> None:
        """End what runs of a program."""
        found = self._json("info", "processes", step="looking what runs")
        with understood(self.id, "the list of what runs"):
            running = [
                str(process["processIdentifier"])
                for process in member(found, "runningProcesses") or ()
                if str(process.get("executable", "")).endswith(executable)
            ]
        for number in running:
            self._json("process", "terminate", "--pid", number, "--kill", step="ending the app")

    def _json(self, *words: str, step: str, timeout_s: float = SHORT_S) -> Any:
        """The result of `devicectl device WORDS`."""
        command, options = _split(words)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "answer.json"
            argv = [*TOOL, "device", *command, "--device", self.udid, *options, "--json-output", str(path)]
            self.asked(argv, step=step, timeout_s=timeout_s)
            try:
                return json.loads(path.read_text(encoding="utf-8"))["result"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DeviceError(f"{step}: devicectl's answer cannot be read: {error}", where=self.id) from error


def _split(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """(the two words of a command, its options)."""
    return words[:2], words[2:]


def _container(app: str) -> list[str]:
    return ["--domain-type", "appDataContainer", "--domain-identifier", app]


def _is_phone(device: Any) -> bool:
    """Not a watch or a television, and not a simulator."""
    hardware = member(device, "hardwareProperties") or {}
    return hardware.get("platform") in ("iOS", "iPadOS") and hardware.get("reality", "physical") == "physical"


def _seen(device: Any) -> SeenPhone:
    version = str(member(device, "deviceProperties", "osVersionNumber") or "")
    return SeenPhone(
        udid=str(member(device, "hardwareProperties", "udid") or "unknown"),
        model=str(member(device, "hardwareProperties", "productType") or "unknown"),
        os=f"iOS {version}".strip(),
        reason=_why_not(device, version),
    )


def _why_not(device: Any, version: str) -> str:
    """Why it cannot be used, empty where it can; a tunnel that is only "disconnected" is made when it is needed."""
    if member(device, "connectionProperties", "pairingState") not in (None, "paired"):
        return "it is not paired with this Mac: plug it in, unlock it and trust this computer"
    if member(device, "connectionProperties", "tunnelState") == "unavailable":
        return "it is not here: plug it in and unlock it"
    if too_old(version):
        return TOO_OLD
    if member(device, "deviceProperties", "developerModeStatus") not in (None, "enabled"):
        return "developer mode is off: switch it on there in Settings, Privacy & Security, Developer Mode"
    return ""
