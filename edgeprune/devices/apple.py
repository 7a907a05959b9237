"""Apple devices: Macs over ssh, where coremltools runs Core ML; iPhones and iPads are found and named.

Never run on Apple hardware: nothing in the project's tests can (see docs/devices.md).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeprune.devices.base import DeviceFacts
from edgeprune.errors import DeviceError, ToolkitMissing

LIST_S = 20.0
NO_RUNNER = (
    "it is seen, but edgeprune has no app for iOS yet that runs models there: measure Core ML files on a Mac"
    " (`edgeprune devices add mac HOST`), or with Xcode's performance report"
)


def find_apple() -> Iterator[DeviceFacts]:
    """iPhones and iPads that are plugged in: asked of Xcode's devicectl on a Mac, of pymobiledevice3 elsewhere.
    Nothing where neither is installed (`edgeprune doctor` says so)."""
    with suppress(ToolkitMissing):
        for entry in _listed():
            yield DeviceFacts(
                id=f"apple:{entry['udid']}",
                kind="apple",
                model=str(entry["model"]),
                cpu="unknown",
                abi="aarch64",
                os=str(entry["os"]),
                cores=1,
                memory_bytes=0,
                ready=False,
                reason=NO_RUNNER,
            )


def _listed() -> list[dict[str, Any]]:
    """udid, model (Apple's identifier, iPhone16,1) and os of each device.

    Raises:
        ToolkitMissing: there is no tool to ask.
    """
    tool = lister()
    if tool.endswith("xcrun"):
        return _from_devicectl()
    entries: list[dict[str, Any]] = json.loads(_output([tool, "usbmux", "list"]) or "[]")
    return [
        {
            "udid": entry.get("Identifier") or entry.get("UniqueDeviceID", "unknown"),
            "model": entry.get("ProductType", "unknown"),
            "os": f"{entry.get('DeviceClass', 'iOS')} {entry.get('ProductVersion', '')}".strip(),
        }
        for entry in entries
    ]


def lister() -> str:
    """The program that lists iPhones and iPads: Xcode's xcrun on a Mac, else pymobiledevice3.

    Raises:
        ToolkitMissing: neither is here.
    """
    found = (sys.platform == "darwin" and shutil.which("xcrun")) or shutil.which("pymobiledevice3")
    if not found:
        raise ToolkitMissing(
            "nothing here can list iPhones and iPads", hint="pip install pymobiledevice3 (or Xcode, on a Mac)"
        )
    return found


def _from_devicectl() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "devices.json"
        _output(["xcrun", "devicectl", "list", "devices", "--json-output", str(path)])
        try:
            devices = json.loads(path.read_text(encoding="utf-8"))["result"]["devices"]
        except (OSError, ValueError, KeyError) as error:
            raise DeviceError(
                f"devicectl's list cannot be read: {error}", where="apple", hint="is Xcode 15 or newer installed?"
            ) from error
    return [
        {
            "udid": device.get("hardwareProperties", {}).get("udid", "unknown"),
            "model": device.get("hardwareProperties", {}).get("productType", "unknown"),
            "os": f"iOS {device.get('deviceProperties', {}).get('osVersionNumber', '')}".strip(),
        }
        for device in devices
    ]


def _output(argv: list[str]) -> str:
    """What a listing tool says; nothing where it fails (no usbmuxd is running, say)."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=LIST_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
