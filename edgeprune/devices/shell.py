"""A shell on a device, reached by a client program of this machine (adb, ssh): the little that both have in common.

What goes over is a POSIX script, made by us: words that come from elsewhere are quoted (`shlex.quote`, or escaped as
the format of `printf`) or travel on stdin, so that no shell ever interprets them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from edgeprune.devices.base import Completed
from edgeprune.devices.child import STDERR_TAIL, TooLate, TooLong, end_group, tail_of
from edgeprune.devices.failures import too_long
from edgeprune.devices.session import Session, SessionEnded, exit_code
from edgeprune.errors import DeviceError, DeviceLost

SHORT_S = 20.0  # for what needs no work on the device
SILENCE_S = 45.0  # after which a device is asked whether it is still there
PING_S = 10.0  # for the answer
LOOK_S = 0.5  # between two looks at how much a client has written
ANSWER_MOST = 64 << 20  # bytes that a script may answer
PULL_MOST = 16 << 30  # bytes of a file
BANNER_MOST = 1 << 16  # what a login shell says before a file begins


@dataclass(frozen=True)
class Answer:
    """What a script answered."""

    exit_code: int
    text: str  # what came on stdout
    stderr_tail: str


class Shell(ABC):
    """Runs scripts on one device: in a session that is held open from one to the next, or, those that read stdin or
    whose output goes into a file, through a client of their own."""

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self.losses = 0  # of sessions: after one, nothing is sure that was known of the device
        self._idle: list[Session] = []
        self._idle_lock = threading.Lock()

    @abstractmethod
    def argv(self, script: str) -> list[str]:
        """The command of this machine that runs a script there."""

    @abstractmethod
    def lost(self, step: str, said: str) -> DeviceError:
        """Why the client could not go on, from what it said on stderr."""

    def reconnect(self) -> None:
        """Try once to get the connection back."""
        self._drop(Session.kill)

    def close(self) -> None:
        """Let go of the connection."""
        self._drop(Session.end)

    def ask(self, script: str, *, step: str, stdin: IO[bytes] | None = None, timeout_s: float | None = None) -> Answer:
        """Run a script to its end. Without `stdin` it must not exit, but end.

        Raises:
            DeviceLost: the connection broke off, or nothing came back in time.
            DeviceError: the client cannot reach the device (says why).
        """
        timeout_s = SHORT_S if timeout_s is None else timeout_s
        if stdin is not None:
            return self._ask_with(stdin, script, step, timeout_s)
        lines: list[str] = []
        left = ANSWER_MOST

        def take(line: str) -> None:
            nonlocal left
            left -= len(line) + 1
            if left < 0:
                raise TooLong
            lines.append(line)

        done = self._in_session(script, step=step, timeout_s=timeout_s, on_line=take)
        return Answer(done.exit_code, "".join(f"{line}\n" for line in lines), done.stderr_tail)

    def post(self, script: str) -> None:
        """Have a short script run without waiting for it, before those that are asked after it. Whether it went well,
        and whether it was run at all, is not told."""
        with self._session() as session:
            session.post(script)

    def stream(
        self, script: str, *, step: str, timeout_s: float, on_line: Callable[[str], None], notes: str
    ) -> Completed:
        """Run a script (one command); lines come as they are printed, the last of stderr when it has failed.

        Exit codes above 128 are signals.

        Args:
            notes: a folder there (a path without blanks or quotes), in which `run/` has the process number while it
                runs, and `said/` what it writes on stderr: to send each line at once would disturb what it measures.

        Raises:
            DeviceLost: the connection broke off, or the device does not answer any more.
            TooLate, TooLong: from the reading; what runs on the device still has to be ended by the caller.
        """
        with self._session() as session:
            number, said = f"{notes}/run/{session.name}", f"{notes}/said/{session.name}"
            wrapped = (
                f"[ -d {notes}/run ] && [ -d {notes}/said ] || mkdir -p {notes}/run {notes}/said; "
                f"( {script} ) 2>{said} & p=$!; echo $p >{number}; wait $p; s=$?; printf '' >{number}; "
                f"[ $s -eq 0 ] || tail -c {STDERR_TAIL} {said} >&2; code() {{ return $1; }}; code $s"
            )
            done = self._run(
                session,
                wrapped,
                step=step,
                timeout_s=timeout_s,
                on_line=on_line,
                silence_s=SILENCE_S,
                on_silence=lambda: self._still_there(step),
            )
        code = done.exit_code
        return replace(done, exit_code=128 - code if 128 < code < 192 else code)

    def _still_there(self, step: str) -> None:
        self.ask("true", step=f"{step}, asking whether it is still there", timeout_s=PING_S)

    def _in_session(self, script: str, *, step: str, timeout_s: float, on_line: Callable[[str], None]) -> Completed:
        with self._session() as session:
            try:
                return self._run(session, script, step=step, timeout_s=timeout_s, on_line=on_line)
            except TooLate:
                raise self._no_answer(step, timeout_s) from None
            except TooLong:
                raise too_long(self.device_id) from None

    def _run(self, session: Session, script: str, *, step: str, **settings: Any) -> Completed:
        try:
            return session.run(script, **settings)
        except SessionEnded as ended:
            raise self.lost(step, ended.said) from ended

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """A session for this thread alone. One that fails is not used again; one that is idle is kept for the next."""
        with self._idle_lock:
            session = self._idle.pop() if self._idle else None
        if session is not None and not session.alive:
            self._give_up(session)
            session = None
        session = session or Session(self.argv("exec sh"))
        try:
            yield session
        except BaseException:
            self._give_up(session)
            raise
        with self._idle_lock:
            spare, self._idle = self._idle, [session]
        for other in spare:
            other.end()

    def _give_up(self, session: Session) -> None:
        self.losses += 1
        session.kill()

    def _drop(self, end: Callable[[Session], None]) -> None:
        with self._idle_lock:
            idle, self._idle = self._idle, []
        for session in idle:
            end(session)

    def _ask_with(self, stdin: IO[bytes], script: str, step: str, timeout_s: float) -> Answer:
        mark = _mark()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            self._finish(_framed(script, mark), stdin, out, errors, step, timeout_s, ANSWER_MOST)
            out.seek(0)
            body, found, said = out.read().rpartition(f"\n{mark} ".encode())
            _, begun, body = body.partition(f"{mark}\n".encode())  # a login shell may have said something before
            code = exit_code(said.decode(errors="replace"))
            if not found or not begun or code is None:
                raise self.lost(step, tail_of(errors))
            return Answer(code, body.decode(errors="replace"), tail_of(errors))

    def receive(self, script: str, local: Path, *, step: str, timeout_s: float) -> Answer:
        """Run a script whose output goes into a file; the answer's stdout is empty."""
        mark = _mark()
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as out, local.open("wb") as target:
            self._finish(_framed(script, mark), None, out, errors, step, timeout_s, PULL_MOST)
            size = out.seek(0, 2)
            out.seek(0)
            head = out.read(BANNER_MOST)
            out.seek(max(0, size - 100))
            tail, found, said = out.read().rpartition(f"\n{mark} ".encode())
            start = head.find(f"{mark}\n".encode()) + len(mark) + 1
            code = exit_code(said.decode(errors="replace"))
            if not found or start <= len(mark) or code is None:
                raise self.lost(step, tail_of(errors))
            out.seek(start)
            end = max(0, size - 100) + len(tail)
            while (left := end - out.tell()) > 0:
                target.write(out.read(min(left, 1 << 20)))
            return Answer(code, "", tail_of(errors))

    def _finish(
        self,
        script: str,
        stdin: IO[bytes] | None,
        out: IO[bytes],
        errors: IO[bytes],
        step: str,
        timeout_s: float,
        most_bytes: int,
    ) -> None:
        """Run the client to its end. What it leaves running goes on: the helper of a jump host, say."""
        process = subprocess.Popen(
            self.argv(script),
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout_s
        try:
            while not _ends(process, min(LOOK_S, max(0.0, deadline - time.monotonic()))):
                if os.fstat(out.fileno()).st_size > most_bytes:
                    raise too_long(self.device_id)
                if time.monotonic() >= deadline:
                    raise self._no_answer(step, timeout_s)
        except BaseException:
            end_group(process)
            raise
        if os.fstat(out.fileno()).st_size > most_bytes:
            raise too_long(self.device_id)

    def _no_answer(self, step: str, timeout_s: float) -> DeviceLost:
        return DeviceLost(f"{step}: no answer within {timeout_s:g} s", where=self.device_id, hint=WHAT_TO_CHECK)


WHAT_TO_CHECK = "check the cable, the network and that the device is awake, then try again (a run: with --resume)"


def _ends(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    """Whether a process ends within so many seconds."""
    try:
        process.wait(timeout=wait_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _framed(script: str, mark: str) -> str:
    """The script between two marks, the second with its exit code."""
    return f"echo {mark}; {{ {script}; }}; s=$?; echo; echo {mark} $s"


def _mark() -> str:
    """A word that no program prints by chance."""
    return f"@edgeprune-{uuid4().hex}"
