"""What this machine needs to reach devices, and how to get what it lacks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass

from edgeprune.devices.adb import attached
from edgeprune.devices.apple import link_kind
from edgeprune.devices.bundle import native_bundle
from edgeprune.errors import EdgePruneError, ToolkitMissing


@dataclass(frozen=True)
class Means:
    """One thing that is needed, for what, and the command that brings it where it is missing (empty: it is here)."""

    what: str
    fix: str = ""
    why: str = ""


def means() -> list[Means]:
    """The clients for each kind of device, and the native runner for phones and boards (built if need be)."""
    return [
        _looked("adb (Android)", lambda: _keep(attached())),
        _looked("ssh (boards, Macs)", _ssh),
        _looked("native runner (aarch64)", lambda: _keep(native_bundle("aarch64"))),
        _looked("iPhones and iPads", lambda: _keep(link_kind())),
    ]


def _ssh() -> None:
    if shutil.which("ssh") is None:
        raise ToolkitMissing("the ssh client is not installed", hint="sudo apt-get install openssh-client")


def _keep(_: object) -> None:
    """What was asked for is here; that is all that is wanted of it."""


def _looked(what: str, look: Callable[[], None]) -> Means:
    try:
        look()
    except EdgePruneError as error:
        return Means(what, fix=error.hint or error.what, why=error.what)
    return Means(what)
