"""The child process in which a toolkit runs: a crash, a time-out or an out-of-memory there is a clear error here."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from edgeprune.artifacts.jobs import REPLY, BuiltProbes, Converted, ConvertJob, End, Failed, ProbeJob
from edgeprune.devices.child import memory_limit, want_of_memory
from edgeprune.errors import ConversionError
from edgeprune.scratch import drop_scratch, empty_scratch, make_scratch

TIMEOUT_S = 3600.0
FINISH_S = 10.0
TAIL_LINES = 25
_OTHERS = (
    "leave this file out (export.formats, and quantize.formats for int8); the others do not need it. If it is the file "
    "of device.runtime, by which latency is measured, choose another runtime"
)
_FRAME = re.compile(r'\s*(Traceback \(most recent call last\)|File "[^"]*", line \d+)')
_UNDERLINE = re.compile(r"\s*[\^~]+\s*$")
_PLACE = re.compile(r"(?<![\w.:/])/(?:[^\s:/\"']+/)+")  # folders before a name
_MEMORY = "free memory and go on; nothing half-written is left"


class Child:
    """One process for one exporter, serving jobs in turn; imports are paid once. Use as a context manager.

    The process dies with this one: its stdin closes and it ends at once.
    """

    def __init__(self, exporter: str, *, timeout_s: float = TIMEOUT_S, threads: int = 1) -> None:
        self.exporter, self._timeout_s, self._threads = exporter, timeout_s, threads
        self._buffer = b""
        self._started = False
        self.served = 0  # jobs
        self._deadline = 0.0
        self._said = 0  # bytes of the log that earlier jobs wrote
        self.timed_out = False
        self.idle = True  # not in the middle of a job

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile(prefix="edgeprune-log-")
        self._scratch, self._scratch_lock = make_scratch("child")
        environment = os.environ | {
            "TMPDIR": str(
                self._scratch
            ),  # coremltools removes its packages at exit, which a killed child never reaches
            "OMP_NUM_THREADS": str(self._threads),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONWARNINGS": "ignore",
            "PYTHONSAFEPATH": "1",  # a folder `onnx/` where the user happens to stand must not shadow the toolkit
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgeprune.artifacts.child_main", self.exporter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,  # its own children end with it, and Ctrl-C reaches it through us only
        )
        self._started = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, and remove all that it left."""
        self.stop()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._log.close()
        drop_scratch(self._scratch, self._scratch_lock)

    def stop(self) -> None:
        """End the process and all it started, from any thread; whoever waits for its answer gets ConversionError."""
        if not self._started:
            return
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def run(self, job: ConvertJob | ProbeJob) -> Iterator[Converted | BuiltProbes]:
        """Send a job and yield what the child says, as it says it.

        Raises:
            ConversionError: the toolkit failed, crashed, took too long or ran out of memory.
        """
        assert self._process.stdin is not None
        step = 0
        self.idle, self._deadline = False, time.monotonic() + self._timeout_s
        if self.served:  # the first says what goes wrong while the toolkit is imported
            self._said = os.fstat(self._log.fileno()).st_size
        try:
            self._process.stdin.write(job.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died(job, step) from error
        while True:
            line = self._read_line(job, step)
            try:
                reply = REPLY.validate_json(line)
            except ValidationError as error:
                self.stop()
                raise self._error(job, step, "sent an answer that cannot be read") from error
            if isinstance(reply, End):
                empty_scratch(self._scratch)
                self.idle, self.served = True, self.served + 1
                return
            if isinstance(reply, Failed):
                self._process.wait()
                if reply.out_of_memory:
                    what = f"ran out of memory ({reply.error}){memory_limit()}"
                    raise self._error(job, step, what, hint=_MEMORY)
                limit = memory_limit()  # what a toolkit says where memory ends may name anything but memory
                perhaps = f" (if it lacked memory{limit})" if limit else ""
                raise self._error(job, step, f"failed: {reply.error}{perhaps}")
            yield reply
            step += 1

    def finish(self, replies: Iterator[Converted | BuiltProbes]) -> None:
        """Let a job end of which no more is expected; one that does not soon is stopped. What it says or how it fails
        by now changes nothing."""
        self._deadline = min(self._deadline, time.monotonic() + FINISH_S)
        with suppress(ConversionError):
            for _ in replies:
                pass

    def _read_line(self, job: ConvertJob | ProbeJob, step: int) -> bytes:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = self._deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self.stop()
                    self.timed_out = True
                    raise self._error(job, step, f"took longer than {self._timeout_s:g} s and was stopped")
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    raise self._died(job, step)
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _died(self, job: ConvertJob | ProbeJob, step: int) -> ConversionError:
        code = self._process.wait()
        if why := want_of_memory(self._log_tail()):
            return self._error(job, step, f"ended with exit code {code}: {why}")
        if code >= 0:
            return self._error(job, step, f"ended with exit code {code} before it was done")
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL:
            why = f"crashed (signal {name}, which the system does when memory runs out)"
            return self._error(job, step, why, hint=_MEMORY)
        return self._error(job, step, f"crashed (signal {name})")

    def _error(self, job: ConvertJob | ProbeJob, step: int, what: str, hint: str = _OTHERS) -> ConversionError:
        making = _making(job, step)
        tail = self._log_tail()
        said = f"; it last said:\n{tail}" if tail else ""
        return ConversionError(
            f"the {self.exporter} toolkit {what}{said}",
            where=making,
            hint=hint,
        )

    def _log_tail(self) -> str:
        # Not by seeking: the child shares the place in the file.
        said = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, self._said)
        lines = _without_frames(said.decode(errors="replace").splitlines())
        return "\n".join(f"    {line[:300]}" for line in lines[-TAIL_LINES:])


def _without_frames(lines: list[str]) -> list[str]:
    """What a toolkit said, without the places in its code: they are long, of no use to its user, and hold the folders
    of this machine."""
    said: list[str] = []
    frame = False
    for line in lines:
        if _FRAME.match(line):
            frame = True
        elif line.strip() and not (frame and line.startswith("    ")) and not _UNDERLINE.match(line):
            frame = False
            said.append(_PLACE.sub("", line))
    return said


def _making(job: ConvertJob | ProbeJob, step: int) -> str:
    if isinstance(job, ConvertJob) and step < len(job.outputs):
        return f"{job.exporter} {job.outputs[step].precision} ({Path(job.outputs[step].file).name})"
    return f"{job.exporter} {job.kind}"
