"""Kinds of devices that other packages bring, found by the entry-point group `edgeprune.devices`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from edgeprune import installed
from edgeprune.devices.base import Device, DeviceFacts
from edgeprune.errors import DeviceError, UsageError

OWN = ("local", "adb", "ssh", "apple", "profile")  # how the ids begin that discovery.py opens itself


class DeviceKind(Protocol):
    """A kind of device. Its devices' ids are `KIND:NAME`, where KIND is the name of its entry point.

    Making an instance must be cheap and must ask no device.
    """

    def names(self) -> Iterable[str]:
        """The names of the devices that can be seen; they are not asked whether they answer."""
        ...

    def open(self, name: str) -> Device:
        """The device of a name.

        Raises:
            DeviceError: there is none, or it does not answer.
        """
        ...


def other_kinds() -> list[str]:
    """The kinds that packages bring beside ours."""
    return list(installed.offered(installed.DEVICES))


def open_other(kind: str, name: str) -> Device:
    """A device of another package's kind.

    Raises:
        UsageError: two packages offer the kind, it is one of ours, or it does not load.
        DeviceError: there is no such device, or it does not answer.
    """
    return _kind(kind).open(name)


def other_ids() -> list[str]:
    """The ids of all devices of such kinds; of a kind that does not work there are none."""
    ids: list[str] = []
    for kind in other_kinds():
        try:
            ids += [f"{kind}:{name}" for name in _kind(kind).names()]
        except (UsageError, DeviceError):
            continue  # `edgeprune devices` tells of it
    return ids


def other_devices() -> Iterator[DeviceFacts]:
    """The devices of such kinds; what does not work is there with the reason."""
    for kind in other_kinds():
        try:
            names = list(_kind(kind).names())
        except (UsageError, DeviceError) as error:
            yield absent(kind, kind, str(error))
            continue
        for name in names:
            yield _facts(kind, name)


def _facts(kind: str, name: str) -> DeviceFacts:
    try:
        device = open_other(kind, name)
        try:
            return device.facts()
        finally:
            device.close()
    except (DeviceError, UsageError) as error:
        return absent(f"{kind}:{name}", kind, error.what)


def _kind(name: str) -> DeviceKind:
    point = installed.chosen(installed.DEVICES, name, "kind of device")
    if name in OWN:
        raise UsageError(
            f"two packages offer the kind of device {name!r}: {installed.OURS} and {installed.package_of(point)}"
            f" ({point.value})",
            hint=f"uninstall {installed.package_of(point)}",
        )
    made = installed.load(point, "kind of device")
    try:
        kind: DeviceKind = made()
    except (ImportError, AttributeError, TypeError) as error:
        raise installed.broken(point, "kind of device", error) from error
    return kind


def absent(id: str, kind: str, reason: str) -> DeviceFacts:
    """What is known of a device that does not answer."""
    return DeviceFacts(
        id=id,
        kind=kind,
        model="unknown",
        cpu="unknown",
        abi="unknown",
        os="unknown",
        cores=1,
        memory_bytes=0,
        ready=False,
        reason=reason,
    )
