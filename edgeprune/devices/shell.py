"""A shell on a device, reached by a client program of this machine (adb, ssh): the little that both have in common.

What goes over is a POSIX script on one line, made by us: words that come from elsewhere are quoted (`shlex.quote`) or
travel on stdin, so that no shell ever interprets them.
"""

from __future__ import annotations

import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from edgeprune.devices.base import Completed
from edgeprune.devices.child import end_group, run_lines, tail_of
from edgeprune.errors import DeviceError, DeviceLost

SHORT_S = 20.0  # for what needs no work on the device
SILENCE_S = 45.0  # after which a device is asked whether it is still there
PING_S = 10.0  # for the answer
BANNER_MOST = 1 << 16  # what a login shell says before a file begins


@dataclass(frozen=True)
class Answer:
    """What a script answered."""

    exit_code: int
    stdout: bytes
    stderr_tail: str

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


class Shell(ABC):
    """Runs scripts on one device."""

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id

    @abstractmethod
    def argv(self, script: str) -> list[str]:
        """The command of this machine that runs a script there."""

    @abstractmethod
    def lost(self, step: str, said: str) -> DeviceError:
        """Why the client could not go on, from what it said on stderr."""

    def reconnect(self) -> None:  # noqa: B027  # ssh needs nothing
        """Try once to get the connection back."""

    def close(self) -> None:  # noqa: B027
        """Let go of the connection."""

    def ask(self, script: str, *, step: str, stdin: IO[bytes] | None = None, timeout_s: float | None = None) -> Answer:
        """Run a script to its end.

        Raises:
            DeviceLost: the connection broke off, or nothing came back in time.
            DeviceError: the client cannot reach the device (says why).
        """
        mark, timeout_s = _mark(), SHORT_S if timeout_s is None else timeout_s
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            self._finish(_framed(script, mark), stdin, out, errors, step, timeout_s)
            out.seek(0)
            body, found, code = out.read().rpartition(f"\n{mark} ".encode())
            _, begun, body = body.partition(f"{mark}\n".encode())  # a login shell may have said something before
            if not found or not begun:
                raise self.lost(step, tail_of(errors))
            return Answer(int(code), body, tail_of(errors))

    def receive(self, script: str, local: Path, *, step: str, timeout_s: float) -> Answer:
        """Run a script whose output goes into a file; the answer's stdout is empty."""
        mark = _mark()
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as out, local.open("wb") as target:
            self._finish(_framed(script, mark), None, out, errors, step, timeout_s)
            size = out.seek(0, 2)
            out.seek(0)
            head = out.read(BANNER_MOST)
            out.seek(max(0, size - 100))
            tail, found, code = out.read().rpartition(f"\n{mark} ".encode())
            start = head.find(f"{mark}\n".encode()) + len(mark) + 1
            if not found or start <= len(mark):
                raise self.lost(step, tail_of(errors))
            out.seek(start)
            end = max(0, size - 100) + len(tail)
            while (left := end - out.tell()) > 0:
                target.write(out.read(min(left, 1 << 20)))
            return Answer(int(code), b"", tail_of(errors))

    def stream(
        self, script: str, *, step: str, timeout_s: float, on_line: Callable[[str], None], pid_file: str
    ) -> Completed:
        """Run a script (one command) in the background of a shell there; lines come as they are printed.

        Its process number is kept in `pid_file` there (a path without blanks or quotes) while it runs. Exit codes
        above 128 are signals.

        Raises:
            DeviceLost: the connection broke off, or the device does not answer any more.
            TooLate, TooLong: from the reading; what runs on the device still has to be ended by the caller.
        """
        mark = _mark()
        held: list[str] = []  # the last line, which is empty when it is ours
        codes: list[int] = []
        begun = False

        def take(line: str) -> None:
            nonlocal begun
            if not begun:  # a login shell may say something before
                begun = line.endswith(mark)
                return
            if line.startswith(f"{mark} "):
                codes.append(int(line.removeprefix(f"{mark} ")))
                if held and not held[0]:
                    held.clear()
                return
            if held:
                on_line(held.pop())
            if line:
                on_line(line)
            else:
                held.append(line)

        wrapped = (
            f"echo {mark}; mkdir -p {pid_file.rpartition('/')[0]}; {script} </dev/null & p=$!; echo $p >{pid_file}; "
            f"wait $p; s=$?; rm -f {pid_file}; echo; echo {mark} $s"
        )
        ended = run_lines(
            self.argv(wrapped),
            on_line=take,
            timeout_s=timeout_s,
            silence_s=SILENCE_S,
            on_silence=lambda: self._still_there(step),
            end_all=False,  # a jump host's helper lives in the client's group
        )
        if not codes:
            raise self.lost(step, ended.stderr_tail)
        code = codes[0]
        return Completed(128 - code if 128 < code < 192 else code, ended.stderr_tail)

    def _still_there(self, step: str) -> None:
        self.ask("true", step=f"{step}, asking whether it is still there", timeout_s=PING_S)

    def _finish(
        self,
        script: str,
        stdin: IO[bytes] | None,
        out: IO[bytes],
        errors: IO[bytes],
        step: str,
        timeout_s: float,
    ) -> None:
        """Run the client to its end. What it leaves running goes on: the helper of a jump host, say."""
        process = subprocess.Popen(
            self.argv(script),
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        try:
            process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            end_group(process)
            raise DeviceLost(
                f"{step}: no answer within {timeout_s:g} s", where=self.device_id, hint=WHAT_TO_CHECK
            ) from None
        except BaseException:
            end_group(process)
            raise


WHAT_TO_CHECK = "check the cable, the network and that the device is awake, then try again (a run: with --resume)"


def _framed(script: str, mark: str) -> str:
    """The script between two marks, the second with its exit code."""
    return f"echo {mark}; {{ {script}; }}; s=$?; echo; echo {mark} $s"


def _mark() -> str:
    """A word that no program prints by chance."""
    return f"@edgeprune-{uuid4().hex}"
