"""How a long job tells what it is doing: stages call this; the command line draws it, libraries may ignore it."""

from __future__ import annotations

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
