"""stdin, stdout and stderr as they may be: closed, piped to a reader that is gone, or of a character set without our
letters. None of that is a failed gate, or a fault of ours."""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

READER_GONE = 128 + signal.SIGPIPE  # as shells count


def make_usable() -> None:
    """Put the null device in the place of closed streams, and `?` in that of letters that one cannot show.

    The first file that is opened would else take the number of a closed stream, and what a library prints would be
    written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _null_as(number)
    null = Path(os.devnull)
    sys.stdin = sys.stdin or null.open(encoding="utf-8")
    sys.stdout = sys.stdout or null.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or null.open("w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def is_reader_gone(error: OSError) -> bool:
    """Whether nobody reads our stdout or stderr any more, as behind `| head`: a broken pipe may be another's too.

    If so, what is still to be written goes nowhere, and Python says nothing of it when it ends.
    """
    if error.errno != errno.EPIPE:
        return False
    gone = [number for number in (1, 2) if _is_broken(number)]
    for number in gone:
        _null_as(number)
    return bool(gone)


def _is_broken(number: int) -> bool:
    poll = select.poll()
    poll.register(number, 0)  # errors alone
    with suppress(OSError):
        return any(events & select.POLLERR for _, events in poll.poll(0))
    return False


def _null_as(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
