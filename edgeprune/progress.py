"""How a long job tells what it is doing: stages call this; the command line draws it, libraries may ignore it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Listens to a job."""

    def stage(self, name: str) -> None:
        """A stage begins."""
        ...

    def say(self, text: str) -> None:
        """Something worth a line of its own."""
        ...

    def update(self, text: str, done: float, total: float) -> None:
        """What is being done now, and how much of it."""
        ...


class Silent:
    """Says nothing."""

    def stage(self, name: str) -> None: ...
    def say(self, text: str) -> None: ...
    def update(self, text: str, done: float, total: float) -> None: ...


SILENT = Silent()


@dataclass(frozen=True)
class Part(Silent):
    """Tells a job how far a part of it is: what was done before the part, and what is to be done in all, count too."""

    whole: Progress
    before: float
    total: float

    def say(self, text: str) -> None:
        self.whole.say(text)

    def update(self, text: str, done: float, total: float) -> None:  # noqa: ARG002  # the part's own total
        self.whole.update(text, self.before + done, self.total)
