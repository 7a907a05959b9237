"""What the adb client says of devices that are not ready (those that are: tests/lab)."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from facts import refused

from edgeprune.devices.adb import attached, open_adb
from edgeprune.devices.discovery import find_devices
from edgeprune.errors import DeviceLost, ToolkitMissing

LISTING = (
    "List of devices attached\\nR5CT20ABCDE\\tunauthorized\\nemulator-5554\\toffline\\n0123456789AB\\tdevice\\n"
    "usb:1-2\\tno permissions (missing udev rules? user is in the plugdev group); see [http://developer.android.com]\\n"
)


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that lists devices in every state, as the real one writes them; it reaches none."""
    client = tmp_path / "adb"
    client.write_text(
        f'#!/bin/sh\ncase "$*" in devices) printf "{LISTING}";; start-server) :;; '
        '*) echo "error: closed" >&2; exit 1;; '
        "esac\n"
    )
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_states_are_told_apart(listing: None) -> None:
    assert attached()["0123456789AB"] == "device"
    with refused(DeviceLost, "adb:R5CT20ABCDE", "`unauthorized`", "USB debugging", code=4):
        open_adb("R5CT20ABCDE")
    with refused(DeviceLost, "adb:emulator-5554", "`offline`", code=4):
        open_adb("emulator-5554")
    with refused(DeviceLost, "`no permissions`", "udev", code=4):
        open_adb("usb:1-2")
    with refused(DeviceLost, "'X'", "adb:R5CT20ABCDE", code=4):
        open_adb("X")


def test_those_that_are_not_ready_are_listed_with_the_reason(listing: None) -> None:
    found = {facts.id: facts for facts in find_devices()}
    assert "unauthorized" in found["adb:R5CT20ABCDE"].reason
    assert "offline" in found["adb:emulator-5554"].reason
    assert not found["adb:0123456789AB"].ready  # it says that it is, and then does not answer
    assert found["local"].ready


def test_without_a_client_the_way_to_get_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    with refused(ToolkitMissing, "apt-get install adb"):
        open_adb("X")
    assert [facts.id for facts in find_devices()] == ["local"]
