"""iPhones and iPads through pymobiledevice3, where there is no Xcode: over usbmuxd, and a tunnel of its own for what
iOS 17 and newer offer to developers. The command lines are those of its version 11."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeprune.devices.failures import understood
from edgeprune.devices.phone_link import LIST_S, SHORT_S, TOO_OLD, PhoneLink, SeenPhone, too_old, transfer_s
from edgeprune.errors import DeviceError

TOOL = "pymobiledevice3"
KILL = "9"


class PyMobile(PhoneLink):
    """A device through pymobiledevice3."""

    @classmethod
    def seen(cls) -> list[SeenPhone]:
        """The devices that usbmuxd sees, and whether developers may use them; none where there is no usbmuxd.

        Raises:
            DeviceError: the list cannot be read.
        """
        try:
            done = subprocess.run(
                [TOOL, "usbmux", "list"], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIST_S, check=False
            )
            entries = json.loads(done.stdout) if done.returncode == 0 else []
            found = {str(entry["Identifier"]): entry for entry in entries}  # twice where it is on Wi-Fi, too
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
            raise DeviceError(f"{TOOL}'s list cannot be read: {error}", where="apple", hint="update it") from error
        with understood("apple", f"{TOOL}'s list"):
            phones = {udid: entry for udid, entry in found.items() if entry.get("DeviceClass") in ("iPhone", "iPad")}
            return [cls(udid)._seen(entry) for udid, entry in phones.items()]

    def apps(self) -> dict[str, str]:
        """Bundle identifier -> CFBundleVersion of the apps that users and developers have put on it."""
        found = self._json("apps", "list", "--type", "User", step="asking for its apps")
        with understood(self.id, "the list of its apps"):
            return {str(name): str(about.get("CFBundleVersion", "")) for name, about in found.items()}

    def send(self, app: str, files: Mapping[str, Path]) -> None:
        """Copy files as one tree: a folder that is sent makes the folders that are missing; a file does not."""
        with tempfile.TemporaryDirectory() as scratch:
            for remote, local in files.items():
                place = Path(scratch) / remote
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(local.resolve())
            size = sum(local.stat().st_size for local in files.values())
            for top in sorted((Path(scratch) / "Documents").iterdir()):
                argv = self._argv("apps", "push", "--documents", app, str(top), "Documents")
                self.asked(argv, step=f"pushing {len(files)} files", timeout_s=transfer_s(size))

    def fetch(self, app: str, remote: str, local: Path) -> None:
        """Copy a file out of an app's container."""
        argv = self._argv("apps", "pull", "--documents", app, remote, str(local))
        self.asked(argv, step=f"pulling {remote}", timeout_s=15 * SHORT_S)

    def console(self, app: str, arguments: Sequence[str]) -> list[str]:
        """Its launcher, attached to the app until it ends; it ends one that runs already."""
        return self._argv("developer", "core-device", "launch-application", "--console", app, *arguments)

    def end(self, executable: str) -> None:
        """End what runs of a program."""
        found = self._json("developer", "core-device", "list-processes", step="looking what runs")
        with understood(self.id, "the list of what runs"):
            running = [
                str(process["processIdentifier"])
                for process in found
                if executable in json.dumps(process).replace("\\/", "/")
            ]
        for number in running:
            argv = self._argv("developer", "core-device", "send-signal-to-process", number, KILL)
            self.asked(argv, step="ending the app")

    def install_command(self, app: str) -> str:
        """What the user types to put a built app on the device."""
        return f"{TOOL} apps install {app} --udid {self.udid}"

    def _seen(self, entry: Mapping[str, Any]) -> SeenPhone:
        version = str(entry.get("ProductVersion") or "")
        return SeenPhone(self.udid, str(entry.get("ProductType")), f"iOS {version}".strip(), self._why_not(version))

    def _why_not(self, version: str) -> str:
        if too_old(version):
            return TOO_OLD
        try:
            status = self._json("amfi", "developer-mode-status", step="asking for developer mode")
        except DeviceError as error:
            return f"{error.what} (unlock it and trust this computer: `{TOOL} lockdown pair`)"
        if status is not True:
            return f"developer mode is off: `{TOOL} amfi enable-developer-mode`, or in its Settings, Privacy & Security"
        return ""

    def _argv(self, *words: str) -> list[str]:
        """Not every command takes the device as an option; all read it from the environment."""
        return [shutil.which("env") or "env", f"PYMOBILEDEVICE3_UDID={self.udid}", TOOL, *words]

    def _json(self, *words: str, step: str) -> Any:
        text = self.asked(self._argv(*words), step=step)
        try:
            return json.loads(text)
        except ValueError as error:
            raise DeviceError(f"{step}: {TOOL}'s answer cannot be read: {text[:200]!r}", where=self.id) from error
