"""The two ways to the machine."""

from __future__ import annotations

from pathlib import Path

from machine import Machine

from edgeprune.devices.adb import open_adb
from edgeprune.devices.remote import RemoteDevice
from edgeprune.devices.ssh import open_ssh


def open_lane(lane: str, machine: Machine, ssh_config: Path) -> RemoteDevice:
    """The machine through adb or ssh."""
    return open_adb(machine.adb_serial) if lane == "adb" else open_ssh("labarm", config=ssh_config)
