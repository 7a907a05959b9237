"""The child process's own main: jobs come as lines on stdin, answers go out as lines; all chatter goes to the log."""

from __future__ import annotations

import gc
import os
import queue
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TextIO

import numpy

from edgeprune.artifacts.jobs import JOB, BuiltProbes, Converted, ConvertJob, End, Failed, ProbeJob
from edgeprune.artifacts.plugins import Exporter, Int8ProbeBuilder, ProbeBuilder, find_exporter
from edgeprune.records import Record

MEMORY_WORDS = ("not enough memory", "can't allocate memory", "std::bad_alloc", "cannot allocate memory")


def main() -> None:
    replies = _take_stdout()
    _say_failures(replies)
    jobs = _read_jobs()
    exporter = find_exporter(sys.argv[1])
    exporter.load()
    while True:
        job = jobs.get()
        _as_new()
        for reply in _serve(exporter, job):
            _say(replies, reply)
        gc.collect()  # a graph's nodes refer to each other: their weights would stay for a while
        _say(replies, End())


def _as_new() -> None:
    """Let chance begin as in a new process, whatever was converted before."""
    import torch

    torch.manual_seed(torch.initial_seed())
    random.seed(0)
    numpy.random.seed(0)


def _serve(exporter: Exporter, job: ConvertJob | ProbeJob) -> Iterator[Converted | BuiltProbes]:
    if isinstance(job, ProbeJob):
        yield BuiltProbes(files=_probes(exporter, job))
        return
    import torch
    from safetensors.torch import load_file

    program = torch.export.load(job.program)
    calibration = load_file(job.calibration)["images"] if job.calibration else None
    started = time.perf_counter()
    for converted in exporter.convert(program, job.outputs, calibration):
        yield converted.model_copy(update={"seconds": time.perf_counter() - started})
        started = time.perf_counter()


def _probes(exporter: Exporter, job: ProbeJob) -> dict[str, Path]:
    if job.precision == "int8" and isinstance(exporter, Int8ProbeBuilder):
        return exporter.build_int8_probes(job.signatures, job.folder)
    if job.precision == "fp32" and isinstance(exporter, ProbeBuilder):
        return exporter.build_probes(job.signatures, job.folder)
    raise TypeError(f"the exporter {job.exporter!r} builds no {job.precision} probes")


def _take_stdout() -> TextIO:
    """Keep the real stdout for the answers; what toolkits print, from Python or C++, goes where stderr goes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _say(replies: TextIO, reply: Record) -> None:
    replies.write(reply.model_dump_json() + "\n")
    replies.flush()


def _say_failures(replies: TextIO) -> None:
    """Before an exception ends this process, tell the parent what it was; the traceback goes to the log."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.__excepthook__(kind, error, trace)
        sys.stderr.flush()
        text = f"{kind.__name__}: {error}".strip()
        first = text.splitlines()[0][:500]
        memory = isinstance(error, MemoryError) or any(word in text.lower() for word in MEMORY_WORDS)
        _say(replies, Failed(error=first, out_of_memory=memory))
        os._exit(1)  # the reader thread waits on stdin, and some toolkits abort while they are torn down

    sys.excepthook = hook


def _read_jobs() -> queue.SimpleQueue[ConvertJob | ProbeJob]:
    """Jobs as they come. When the parent goes, in the middle of a conversion too, this process ends."""
    jobs: queue.SimpleQueue[ConvertJob | ProbeJob] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            jobs.put(JOB.validate_json(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return jobs


if __name__ == "__main__":
    main()
