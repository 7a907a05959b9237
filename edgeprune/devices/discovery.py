"""Finding and opening devices."""

from __future__ import annotations

import difflib

from edgeprune.devices.base import Device, DeviceFacts
from edgeprune.devices.facts import local_facts
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DeviceError

NOT_BUILT = {"adb": "Android devices over adb", "ssh": "Linux boards over ssh", "apple": "iPhones and iPads"}


def find_devices() -> list[DeviceFacts]:
    """Every device that can be seen from here."""
    return [local_facts()]


def open_device(id: str) -> Device:
    """Open a device by its id.

    Raises:
        DeviceError: no such device (names the known ids), or its kind is not built yet.
    """
    if id == "local":
        return LocalDevice()
    kind = id.partition(":")[0]
    if ":" in id and kind in NOT_BUILT:
        raise DeviceError(
            f"{NOT_BUILT[kind]} are not built yet",
            where=id,
            hint="this version measures on the machine it runs on: use the device `local`",
        )
    known = [device.id for device in find_devices()]
    near = difflib.get_close_matches(id, known, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise DeviceError(f"no device is called {id!r}", hint=f"{hint}known devices: {', '.join(known)}")
