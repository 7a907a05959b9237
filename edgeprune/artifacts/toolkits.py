"""The toolkits of a run: a child process for each exporter, started when it is first needed, ended with the run.

To import a toolkit takes seconds, a conversion often less. Whoever converts asks for `toolkits()`: those of the run
that is going on, or of several runs, where somebody opened some for all; where none are open, some for this once. They
are found by the context and not handed on, because what measures stands far below what runs stages.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from edgeprune.artifacts.child import Child
from edgeprune.artifacts.jobs import BuiltProbes, Converted, ConvertJob, ProbeJob
from edgeprune.errors import ConversionError

IDLE_S = 120.0  # after which a child ends: a training of hours needs the memory
_OPEN: ContextVar[Toolkits | None] = ContextVar("toolkits", default=None)


@dataclass
class _Place:
    """One exporter's child, and who has it."""

    turn: threading.RLock = field(default_factory=threading.RLock)
    child: Child | None = None
    rest: threading.Timer | None = None

    def end(self) -> None:
        with self.turn:
            child, self.child = self.child, None
            if child is not None:
                child.close()


class Toolkits:
    """Children that serve in turn whoever asks while this is open. Use as a context manager.

    A child that failed, or was left in the middle of a job, is not used again. What a job fails at in a child that has
    served before is tried once more in a new one before it is told.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[str, int], _Place] = {}
        self._adding = threading.Lock()

    def __enter__(self) -> Self:
        self._token = _OPEN.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _OPEN.reset(self._token)
        self.end()

    def end(self) -> None:
        """End all children that are at no work; those that are needed again are started anew."""
        for place in self._places.values():
            if place.rest is not None:
                place.rest.cancel()
            place.end()

    def start(self, exporter: str, *, threads: int = 1) -> None:
        """Start a child that is needed soon, unless it is there; nothing waits for it."""
        with self.child(exporter, threads=threads):
            pass

    @contextmanager
    def child(self, exporter: str, *, threads: int = 1) -> Iterator[Child]:
        """An exporter's child, with so many threads, alone until it is given back."""
        with self._adding:
            place = self._places.setdefault((exporter, threads), _Place())
        with place.turn:
            if place.rest is not None:
                place.rest.cancel()
            if place.child is None or not place.child.alive:
                place.end()
                place.child = Child(exporter, threads=threads).__enter__()
            try:
                yield place.child
            finally:
                if not place.child.idle:
                    place.end()
                else:
                    place.rest = threading.Timer(IDLE_S, place.end)
                    place.rest.daemon = True
                    place.rest.start()

    def do(self, job: ConvertJob | ProbeJob, *, threads: int = 1) -> list[Converted | BuiltProbes]:
        """Do a whole job; returns all that the child said.

        Raises:
            ConversionError: the toolkit failed, crashed, took too long or ran out of memory.
        """
        while True:
            with self.child(job.exporter, threads=threads) as child:
                try:
                    return list(child.run(job))
                except ConversionError:
                    child.stop()
                    if not may_try_again(child):
                        raise


def may_try_again(child: Child) -> bool:
    """Whether a new child may do what this one failed at: others' work had taken memory there, or left something."""
    return child.served > 0 and not child.timed_out


@contextmanager
def toolkits() -> Iterator[Toolkits]:
    """Those of the run that is going on; where none is, some for this once."""
    opened = _OPEN.get()
    if opened is not None:
        yield opened
        return
    with Toolkits() as own:
        yield own
