"""What every kind of device says in the same words when a program on it has to be ended, or cannot be understood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgeprune.devices.child import TooLate, TooLong
from edgeprune.errors import DeviceError

# What reading an answer raises when it is not what it should be.
NONSENSE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, EOFError, MemoryError)
WHAT_TO_TRY = "start the device anew and prepare it again (`edgeprune devices prepare`); then try again"


@contextmanager
def understood(device: str, what: str) -> Iterator[None]:
    """While an answer of a device is read: whatever fails is the device's fault.

    Raises:
        DeviceError: the answer cannot be understood.
    """
    try:
        yield
    except NONSENSE as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DeviceError(f"{what} cannot be understood ({why})", where=device, hint=WHAT_TO_TRY) from error


@contextmanager
def ended_by_us(device: str, timeout_s: float) -> Iterator[None]:
    """While a program runs on a device.

    Raises:
        DeviceError: it was ended, for its time was up or it wrote without end.
    """
    try:
        yield
    except TooLate as error:
        raise DeviceError(
            f"the program ran longer than {timeout_s:g} s and was ended",
            where=device,
            hint="give it more time, or fewer inputs or files at once",
        ) from error
    except TooLong as error:
        raise too_long(device) from error


def too_long(device: str) -> DeviceError:
    """A program's output never ended."""
    return DeviceError(
        "the program wrote without end and was ended",
        where=device,
        hint="a runner writes short lines: check what was started there, and prepare the device again",
    )
