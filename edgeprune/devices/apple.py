"""iPhones and iPads: which of the two tools reaches them, and what it lists. (Macs are reached by ssh.)"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

from edgeprune.devices.base import DeviceFacts
from edgeprune.devices.iphone import IPhone
from edgeprune.devices.phone_link import PhoneLink
from edgeprune.errors import ToolkitMissing


def find_apple() -> Iterator[DeviceFacts]:
    """The iPhones and iPads that are known here, with the reason where one is not ready. Nothing where there is no
    tool to ask (`edgeprune doctor` says so).

    Raises:
        DeviceError: the tool's list cannot be read.
    """
    try:
        link = link_kind()
    except ToolkitMissing:
        return
    for phone in link.seen():
        yield IPhone(link(phone.udid), phone).facts()


def find_phone(udid: str) -> IPhone | None:
    """One of them by its UDID; None where it is not listed.

    Raises:
        DeviceError: the tool's list cannot be read.
    """
    try:
        link = link_kind()
    except ToolkitMissing:
        return None
    return next((IPhone(link(udid), phone) for phone in link.seen() if phone.udid == udid), None)


def link_kind() -> type[PhoneLink]:
    """The tool that reaches iPhones and iPads from here: Xcode's devicectl on a Mac, else pymobiledevice3.

    Raises:
        ToolkitMissing: neither is here.
    """
    if sys.platform == "darwin" and shutil.which("xcrun"):
        from edgeprune.devices.devicectl import Devicectl

        return Devicectl
    if shutil.which("pymobiledevice3"):
        from edgeprune.devices.pymobile import PyMobile

        return PyMobile
    raise ToolkitMissing(
        "nothing here reaches iPhones and iPads", hint="pip install pymobiledevice3 (or Xcode, on a Mac)"
    )
