"""Finding and opening devices."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.devices.base import Device, DeviceFacts
from edgeprune.devices.facts import local_facts
from edgeprune.devices.local import LocalDevice
from edgeprune.devices.others import absent, open_other, other_devices, other_ids, other_kinds
from edgeprune.errors import DeviceError, EdgePruneError, ToolkitMissing, UsageError

if TYPE_CHECKING:
    from edgeprune.devices.registry import AddedDevice


PROFILE = "profile:"  # how the id of a device profile begins: the typical tables of a kind of device


def find_devices() -> list[DeviceFacts]:
    """Every device that can be seen from here or was added: this machine, adb, ssh, Apple, other packages' kinds.
    Those that do not answer are there with the reason."""
    return [local_facts(), *_adb_devices(), *_added_devices(), *_apple_devices(), *other_devices()]


def known_ids() -> list[str]:
    """The ids of all devices, without asking them anything."""
    from edgeprune.devices.adb import attached

    try:
        serials = [f"adb:{serial}" for serial in attached()]
    except EdgePruneError:
        serials = []
    here, *others = ids_at_hand()
    return [here, *serials, *others]


def ids_at_hand() -> list[str]:
    """The ids that are known without any other program: this machine, those that were added, other packages'."""
    from edgeprune.devices.registry import added_devices

    return ["local", *(device.id for device in added_devices()), *other_ids()]


def open_device(id: str) -> Device:
    """Open a device by its id: `local`, `adb:SERIAL`, `ssh:NAME` (as added, or a host of the ssh config),
    `apple:NAME` (a Mac as added, or the UDID of an iPhone) or `KIND:NAME` of another package's kind.

    Raises:
        DeviceError: no such device (names the known ids), or it does not answer.
        UsageError: it is a device profile, on which nothing runs, or a package's kind that does not load.
        ToolkitMissing: what is needed to reach it is not installed.
    """
    if not id.strip():
        raise UsageError(
            "the device's id is empty", hint="leave it out for this machine, or name one of `edgeprune devices`"
        )
    refuse_profile(id)
    kind, _, name = id.partition(":")
    if id == "local":
        return LocalDevice()
    if kind == "adb" and name:
        from edgeprune.devices.adb import open_adb

        return open_adb(name)
    if kind == "ssh" and name:
        return _open_ssh(id, name)
    if kind == "apple" and name:
        return _open_apple(id, name)
    if name and kind in other_kinds():
        return open_other(kind, name)
    known = known_ids()
    near = difflib.get_close_matches(id, known, n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    raise DeviceError(f"no device is called {id!r}", hint=f"{hint}known devices: {', '.join(known)}")


def refuse_profile(id: str) -> None:
    """Refuse the id of a device profile where a device is needed.

    Raises:
        UsageError: it is one.
    """
    if id.startswith(PROFILE):
        raise UsageError(
            "a device profile is no device: nothing runs on it, and nothing is measured",
            where=id,
            hint="`edgeprune predict` and `edgeprune prune` plan with its typical tables; for the rest attach a device",
        )


def _open_ssh(id: str, name: str) -> Device:
    from edgeprune.devices.registry import added_devices
    from edgeprune.devices.ssh import open_ssh

    for added in added_devices():
        if added.id == id:
            return open_added(added)
    return open_ssh(name)


def _open_apple(id: str, name: str) -> Device:
    from edgeprune.devices.apple import find_phone
    from edgeprune.devices.registry import added_devices

    for added in added_devices():
        if added.id == id:
            return open_added(added)
    if (phone := find_phone(name)) is not None:
        return phone
    raise DeviceError(
        f"no Apple device is called {name!r}",
        hint="Macs are added with `edgeprune devices add mac HOST --name NAME`; `edgeprune devices`"
        " lists the iPhones that are plugged in",
    )


def open_added(added: AddedDevice) -> Device:
    """A machine as it is, or would be, in the user's list."""
    from edgeprune.devices.ssh import open_ssh

    config = Path(added.ssh_config) if added.ssh_config else None
    if added.kind == "mac":
        return open_ssh(added.host, id=added.id, config=config, python=added.python, runner="python", kind="apple")
    return open_ssh(added.host, id=added.id, config=config, python=added.python, runner=added.runner)


def _adb_devices() -> Iterator[DeviceFacts]:
    from edgeprune.devices.adb import attached, not_ready, open_adb

    try:
        found = attached()
    except (ToolkitMissing, DeviceError):
        return  # `edgeprune doctor` tells of that
    for serial, state in found.items():
        id = f"adb:{serial}"
        if state != "device":
            yield absent(id, "adb", not_ready(state))
            continue
        try:
            yield open_adb(serial).facts()
        except (DeviceError, UsageError) as error:
            yield absent(id, "adb", error.what)


def _added_devices() -> Iterator[DeviceFacts]:
    from edgeprune.devices.registry import added_devices

    for added in added_devices():
        try:
            device = open_device(added.id)
            try:
                yield device.facts()
            finally:
                device.close()
        except (DeviceError, UsageError) as error:
            yield absent(added.id, added.id.partition(":")[0], error.what)


def _apple_devices() -> Iterator[DeviceFacts]:
    from edgeprune.devices.apple import find_apple

    try:
        yield from find_apple()
    except (DeviceError, ValueError) as error:  # its tool is there and does not work, or says what is no JSON
        yield absent("apple", "apple", f"iPhones cannot be listed: {error}")
