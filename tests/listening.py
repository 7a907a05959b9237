"""Progress that keeps what it is told, for tests to ask."""

from __future__ import annotations

from edgeprune.progress import Silent


class Listening(Silent):
    """`said` has the lines, `told` how far the work was (what, done, in all)."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.told: list[tuple[str, float, float]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def update(self, text: str, done: float, total: float) -> None:
        self.told.append((text, done, total))

    @property
    def done(self) -> list[float]:
        """How much was done, each time it was told."""
        return [done for _, done, _ in self.told]
