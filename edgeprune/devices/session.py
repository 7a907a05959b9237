"""A shell on a device that is held open: a script costs nothing there but the programs that it starts itself."""

from __future__ import annotations

import os
import subprocess
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import uuid4

from edgeprune.devices.base import Completed
from edgeprune.devices.child import LINGER_S, end_group, read_lines


class SessionEnded(Exception):
    """The connection broke off before the answer was whole; `said` is what the client wrote on stderr."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class Session:
    """A client program (adb, ssh) with a shell at its other end, which reads scripts from its stdin.

    Args:
        argv: the command of this machine that runs `sh` there.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.name = uuid4().hex
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._greeted = False
        self._let_go = weakref.finalize(self, _hang_up, self._process)

    @property
    def alive(self) -> bool:
        """Whether the client still runs; it ends when the connection is seen to be gone, by `run` at the latest."""
        return self._process.poll() is None

    def run(
        self,
        script: str,
        *,
        on_line: Callable[[str], None],
        timeout_s: float,
        silence_s: float | None = None,
        on_silence: Callable[[], None] | None = None,
    ) -> Completed:
        """Run a script (a list of commands that neither exit nor read stdin) after those that were sent before; each
        line of its stdout goes to `on_line`. It runs whole or, should it not arrive whole, not at all.

        Raises:
            SessionEnded, TooLate, TooLong: the session is of no use any more then, as after an exception of `on_line`.
        """
        frame = _Frame(on_line, begun=self._greeted)
        self._greeted = True
        tail = read_lines(
            self._process,
            frame.take,
            deadline=time.monotonic() + timeout_s,
            send=frame.around(script),
            done=lambda: frame.code is not None,
            last=frame.last,
            silence_s=silence_s,
            on_silence=on_silence,
        )
        said = tail.removesuffix(frame.last() or b"").decode(errors="replace")
        if frame.code is None:
            self.kill()  # its outputs have ended; the program itself may take a moment longer, or not end by itself
            raise SessionEnded(said)
        return Completed(frame.code, said)

    def post(self, script: str) -> None:
        """Have a short script run without waiting for it; later ones run after it. Whether it went well is not told."""
        assert self._process.stdin is not None
        with suppress(OSError):
            os.write(self._process.stdin.fileno(), f"{{ {script}; }} </dev/null >/dev/null 2>&1\n".encode())

    def end(self) -> None:
        """Let the scripts that were sent come to their end, then close; what hangs is killed."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LINGER_S)
        self.kill()

    def kill(self) -> None:
        """End the client at once. What runs on the device goes on."""
        self._let_go()
        end_group(self._process)


class _Frame:
    """What stands around a script, so that its own lines are told from the rest, and its exit code is known.

    Args:
        begun: nothing comes before the script's own lines; otherwise a login shell may say something first.
    """

    def __init__(self, on_line: Callable[[str], None], *, begun: bool) -> None:
        self.code: int | None = None
        self._mark = f"@edgeprune-{uuid4().hex}"  # a word that no program prints by chance
        self._on_line = on_line
        self._begun = begun
        self._empty = False  # the last line was empty: it is ours if nothing but the code follows

    def around(self, script: str) -> bytes:
        mark = self._mark
        hello = "" if self._begun else f"echo {mark}; "
        ended = f'[ $s -eq 0 ] || echo {mark} >&2; echo "\n{mark} $s"'  # each line there costs time
        return f"{hello}cd /; {{ {script}; }} </dev/null; s=$?; {ended}\n".encode()

    def last(self) -> bytes | None:
        """What comes last on stderr: our word after a failure, nothing else otherwise; None while that is not known."""
        if self.code is None:
            return None
        return f"{self._mark}\n".encode() if self.code else b""

    def take(self, line: str) -> None:
        if not self._begun:
            self._begun = line.endswith(self._mark)
            return
        if line.startswith(f"{self._mark} "):
            code = exit_code(line.removeprefix(f"{self._mark} "))
            if code is None:
                raise SessionEnded(f"its exit code is no number: {line[len(self._mark) :][:50]!r}")
            self.code = code
            return
        if self._empty:
            self._on_line("")
        self._empty = not line
        if line:
            self._on_line(line)


def exit_code(text: str) -> int | None:
    """An exit code as a shell writes it; None where it is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and int(text[:4]) < 256 and len(text) < 5 else None


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
