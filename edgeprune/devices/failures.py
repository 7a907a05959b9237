"""What every kind of device says in the same words when a program on it has to be ended."""

from __future__ import annotations

from edgeprune.errors import DeviceError


def too_late(device: str, timeout_s: float) -> DeviceError:
    """The time of a program was up."""
    return DeviceError(
        f"the program ran longer than {timeout_s:g} s and was ended",
        where=device,
        hint="give it more time, or fewer inputs or files at once",
    )


def too_long(device: str) -> DeviceError:
    """A program's output never ended."""
    return DeviceError(
        "the program wrote a line without end and was ended",
        where=device,
        hint="a runner writes short lines: check what was started there, and prepare the device again",
    )
