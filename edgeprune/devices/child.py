"""A child process of this machine whose output is watched: a runner, or the client of one (adb, ssh)."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STDERR_TAIL = 4000
LINE_MOST = 16 << 20  # a line longer than this is no answer
BLOCK = 1 << 16


@dataclass(frozen=True)
class Ended:
    """How a child ended. `exit_code` is negative for a signal."""

    exit_code: int
    stderr_tail: str


class TooLate(Exception):
    """The child was still running when its time was up; it was ended."""


class TooLong(Exception):
    """The child wrote a line without end; it was ended."""


def run_lines(
    argv: Sequence[str],
    *,
    on_line: Callable[[str], None],
    timeout_s: float,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    silence_s: float | None = None,
    on_silence: Callable[[], None] | None = None,
) -> Ended:
    """Run a command with nothing on stdin; each line of stdout goes to `on_line` as it comes.

    The child and all it started are ended when the time is up, when `on_line` or `on_silence` raise, or when the
    caller is interrupted. `on_silence` is called whenever nothing came for `silence_s` seconds.

    Raises:
        TooLate, TooLong: it was ended.
        OSError: it could not be started.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            with process.stdout:
                _read(process.stdout, on_line, time.monotonic() + timeout_s, silence_s, on_silence)
            exit_code = process.wait()
        finally:
            end_group(process)
        return Ended(exit_code, tail_of(errors))


def _read(
    stream: IO[bytes],
    on_line: Callable[[str], None],
    deadline: float,
    silence_s: float | None,
    on_silence: Callable[[], None] | None,
) -> None:
    held = bytearray()
    heard = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if now >= deadline:
                raise TooLate
            quiet_until = heard + silence_s if silence_s is not None else deadline
            if now >= quiet_until:
                if on_silence is not None:
                    on_silence()
                heard = time.monotonic()
                continue
            if not selector.select(min(deadline, quiet_until) - now):
                continue
            block = os.read(stream.fileno(), BLOCK)
            heard = time.monotonic()
            if not block:
                break
            held += block
            *lines, rest = held.split(b"\n")
            for line in lines:
                on_line(line.decode(errors="replace"))
            held = bytearray(rest)
            if len(held) > LINE_MOST:
                raise TooLong
    if held:
        on_line(held.decode(errors="replace"))


def tail_of(errors: IO[bytes]) -> str:
    """The last of what was written to a file."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - STDERR_TAIL))
    return errors.read().decode(errors="replace")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it started (it leads its own group)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
