"""A child process of this machine whose output is watched: a runner, or the client of one (adb, ssh)."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from edgeprune.devices.base import Completed

STDERR_TAIL = 4000
LINE_MOST = 16 << 20  # a line longer than this is no answer
BLOCK = 1 << 16
_MEMORY_WORDS = (  # of the loader, Python, C++ and OpenBLAS
    *("cannot allocate memory", "can't allocate memory", "failed to map segment", "cannot map", "not enough memory"),
    *("memoryerror", "bad_alloc", "memory allocation", "out of memory", "can't start new thread"),
    *("cannot create shared object", "resource temporarily unavailable"),
)
LINGER_S = 2.0  # stderr is read so long after stdout has ended


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
    silence_s: float | None = None,
    on_silence: Callable[[], None] | None = None,
) -> Completed:
    """Run a command with nothing on stdin; each line of stdout goes to `on_line` as it comes. What is left of a line
    that was cut off is dropped.

    The child and all it started are ended at its end, when the time is up, when `on_line` or `on_silence` raise (that
    is called whenever nothing came for `silence_s` seconds), or when the caller is interrupted.

    Raises:
        TooLate, TooLong: it was ended.
        OSError: it could not be started.
    """
    deadline = time.monotonic() + timeout_s
    process = subprocess.Popen(
        list(argv),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with process.stdout, process.stderr:
            tail = read_lines(process, on_line, deadline=deadline, silence_s=silence_s, on_silence=on_silence)
        try:
            exit_code = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TooLate from None
    finally:
        end_group(process)
    return Completed(exit_code, tail.decode(errors="replace"))


def read_lines(
    process: subprocess.Popen[bytes],
    on_line: Callable[[str], None],
    *,
    deadline: float,
    send: bytes = b"",
    done: Callable[[], bool] = lambda: False,
    last: Callable[[], bytes | None] = lambda: None,
    silence_s: float | None = None,
    on_silence: Callable[[], None] | None = None,
) -> bytes:
    """Read both outputs of a child until stdout ends or `done` says so; returns the last of stderr, up to `last` where
    it is told. `send` goes to its stdin meanwhile (which must not block). `on_silence` is called whenever nothing came
    for `silence_s` seconds.

    Raises:
        TooLate, TooLong
    """
    assert process.stdout is not None
    assert process.stderr is not None
    held, tail = bytearray(), b""
    heard = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        if send and process.stdin is not None:
            selector.register(process.stdin, selectors.EVENT_WRITE)
        while process.stdout in selector.get_map() and not done():
            now = time.monotonic()
            if now >= deadline:
                raise TooLate
            quiet_until = heard + silence_s if silence_s is not None else deadline
            if now >= quiet_until:
                if on_silence is not None:
                    on_silence()
                heard = time.monotonic()
                continue
            for key, _ in selector.select(min(deadline, quiet_until) - now):
                if key.fileobj is process.stdin:
                    send = _sent(key.fd, send)
                    if not send:
                        selector.unregister(key.fileobj)
                    continue
                block = os.read(key.fd, BLOCK)
                if not block:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    tail = (tail + block)[-STDERR_TAIL:]
                else:
                    heard = time.monotonic()
                    held = _lines(held + block, on_line)
    return _rest(process.stderr, tail, last())


def _rest(stderr: IO[bytes], tail: bytes, last: bytes | None) -> bytes:
    """Read stderr up to its end, or to what is its last; not for ever: another process may hold it open."""
    until = time.monotonic() + LINGER_S
    with selectors.DefaultSelector() as selector:
        selector.register(stderr, selectors.EVENT_READ)
        while time.monotonic() < until and not (last is not None and tail.endswith(last)):
            for _ in selector.select(LINGER_S / 10):
                block = os.read(stderr.fileno(), BLOCK)
                if not block:
                    return tail
                tail = (tail + block)[-STDERR_TAIL:]
    return tail


def _sent(descriptor: int, data: bytes) -> bytes:
    """Write what fits; returns the rest: nothing once nobody reads any more."""
    try:
        return data[os.write(descriptor, data[:BLOCK]) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return b""


def _lines(held: bytearray, on_line: Callable[[str], None]) -> bytearray:
    """Hand out whole lines; returns what is left."""
    *lines, rest = held.split(b"\n")
    for line in lines:
        on_line(line.decode(errors="replace"))
    if len(rest) > LINE_MOST:
        raise TooLong
    return bytearray(rest)


def tail_of(errors: IO[bytes]) -> str:
    """The last of what was written to a file."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - STDERR_TAIL))
    return errors.read().decode(errors="replace")


def last_lines(text: str, count: int = 2) -> str:
    """The last lines of what a program said, on one."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-count:])


def want_of_memory(said: str) -> str:
    """Whether a program that ended lacked memory, by its last words, in a sentence; empty if they say nothing of it."""
    if not any(word in said.lower() for word in _MEMORY_WORDS):
        return ""
    return f"it found no memory{memory_limit()}"


def memory_limit() -> str:
    """How much a process may take here, as the end of a sentence; empty where that is not limited."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ""
    return f": a process may take {limit >> 20} MB here (`ulimit -v`); raise that limit"


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it started (it leads its own group)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
