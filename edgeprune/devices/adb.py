"""Android phones and other devices behind adbd, through the user's own adb client and server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgeprune.devices.child import last_lines
from edgeprune.devices.remote import RemoteDevice
from edgeprune.devices.shell import WHAT_TO_CHECK, Shell
from edgeprune.errors import DeviceError, DeviceLost, ToolkitMissing

WORK_FOLDER = "/data/local/tmp/edgeprune"  # the one place of Android where a shell may keep and start programs
CLIENT_S = 20.0
NOT_READY = {
    "unauthorized": "it has not allowed this computer: unlock it and accept the question about USB debugging",
    "offline": "it is connected but does not answer: plug it in again, or `adb reconnect offline`",
    "no permissions": "this computer may not open the USB port: add the udev rules (package android-sdk-platform-tools"
    "-common) and plug it in again",
    "bootloader": "it is in its bootloader: start Android (`fastboot reboot`)",
    "recovery": "it is in recovery: start Android (`adb reboot`)",
    "sideload": "it is waiting for a sideload: start Android",
    "authorizing": "it is just being authorized: try again",
    "connecting": "it is just connecting: try again",
    "host": "it is an adb host and no device",
}


def adb_client() -> str:
    """The adb program: on PATH or in the Android SDK.

    Raises:
        ToolkitMissing: there is none.
    """
    if found := shutil.which("adb"):
        return found
    for name in ("ANDROID_HOME", "ANDROID_SDK_ROOT"):
        candidate = Path(os.environ.get(name, "/nonexistent")) / "platform-tools" / "adb"
        if candidate.is_file():
            return str(candidate)
    raise ToolkitMissing(
        "the adb client is not installed",
        hint="sudo apt-get install adb (or Android's platform-tools; then put adb on PATH or set ANDROID_HOME)",
    )


def attached() -> dict[str, str]:
    """Serial -> state ("device" is ready) of everything the adb server sees.

    Raises:
        ToolkitMissing: there is no adb client.
        DeviceError: its server does not start.
    """
    client = adb_client()
    started = _run([client, "start-server"])
    if started.returncode:
        raise DeviceError(
            f"the adb server does not start: {last_lines(started.stdout)}",
            where="adb",
            hint="`adb kill-server`, then `adb start-server` shows why",
        )
    found = {}
    for line in _run([client, "devices"]).stdout.splitlines():
        match = re.fullmatch(r"(.+?)\t(.+)", line)
        if match:
            found[match[1]] = match[2].split(";")[0].strip()
    return found


def open_adb(serial: str) -> RemoteDevice:
    """An attached device by its serial (USB) or address (HOST:PORT; connected to when it is not yet).

    Raises:
        ToolkitMissing: there is no adb client.
        DeviceError: it is not attached, or not ready; says why.
    """
    shell = AdbShell(serial)
    shell.connect()
    return RemoteDevice(shell, kind="adb", folder=WORK_FOLDER, python="", runner="native")


class AdbShell(Shell):
    """The shell of a device behind adbd."""

    def __init__(self, serial: str) -> None:
        super().__init__(f"adb:{serial}")
        if not serial or serial.startswith("-") or not serial.isprintable():
            raise DeviceError(f"{serial!r} is no serial number", where="adb", hint="see `edgeprune devices`")
        self._serial, self._client = serial, adb_client()

    def argv(self, script: str) -> list[str]:
        """The adb client, without a terminal: binary data and separate stderr."""
        return [self._client, "-s", self._serial, "shell", "-T", script]

    def lost(self, step: str, said: str) -> DeviceError:
        """Why the client gave up."""
        try:
            why = _why_not(attached().get(self._serial), self._serial)
        except DeviceError as error:  # its server does not start
            why = error.what
        said = last_lines(said)
        if why is None:
            why = f"the connection broke off{f' ({said})' if said else ''}"
        elif said:
            why = f"{why} ({said})"
        return DeviceLost(f"{step}: {why}", where=self.device_id, hint=WHAT_TO_CHECK)

    def connect(self) -> None:
        """See that the device is there; an address that the server does not know is connected to.

        Raises:
            DeviceLost: it is not there, or not ready; says why.
        """
        state = attached().get(self._serial)
        if state != "device" and ":" in self._serial:
            if state is not None:  # an old connection that is dead
                _run([self._client, "disconnect", self._serial])
            _run([self._client, "connect", self._serial])
            state = attached().get(self._serial)
        if why := _why_not(state, self._serial):
            others = ", ".join(f"adb:{serial}" for serial in attached()) or "none"
            raise DeviceLost(why, where=self.device_id, hint=f"attached now: {others} (see `edgeprune devices`)")

    def reconnect(self) -> None:
        """Connect anew: an old connection to a device that has gone looks sound until something is sent over it."""
        super().reconnect()
        if ":" in self._serial and self._serial in attached():
            _run([self._client, "disconnect", self._serial])
        self.connect()


def _why_not(state: str | None, serial: str) -> str | None:
    """Why a device in this state cannot be used; None when it can."""
    if state == "device":
        return None
    if state is None:
        return f"adb sees no device {serial!r}"
    known = next((words for name, words in NOT_READY.items() if state.startswith(name)), None)
    return f"adb says `{state.partition(' (')[0]}`" + (f": {known}" if known else "")


def not_ready(state: str) -> str:
    """Words for a state that is not "device"."""
    return _why_not(state, "") or ""


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """A short client command. Not through pipes: a server that it starts would keep them open."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            code = process.wait(timeout=CLIENT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise DeviceLost(
                f"`adb {argv[1]}` does not answer", where="adb", hint="`adb kill-server`, then try again"
            ) from None
        out.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read().decode(errors="replace"), "")
