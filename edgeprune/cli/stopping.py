"""TERM and HUP end a command as Ctrl-C does: children are stopped, folders removed, locks freed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C's; all that cleans up after Ctrl-C does so after it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stopped_code(stopped: KeyboardInterrupt) -> int:
    """The exit code of a command that a signal ended, as shells count: 130 after Ctrl-C, 143 after TERM, 129 after
    HUP."""
    return 128 + (stopped.number if isinstance(stopped, Stopped) else signal.SIGINT)


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """While a command runs: TERM and HUP interrupt it. One that is ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _stop(number: int, _: Any) -> NoReturn:
    raise Stopped(number)
