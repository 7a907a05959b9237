"""The recipe that these tests run, in seconds, and those who listen to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe

FACTORY = f"{Path(__file__).with_name('two_convolutions.py')}:net"
TREE: dict[str, Any] = {
    "model": {"factory": FACTORY, "input_size": (1, 16, 16), "untrained": True},
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    "prune": {"target": "3kparams", "method": "magnitude", "scoring_batches": 1},
    "tune": {"epochs": 1},
    "quantize": {"enabled": False},
    "export": {"formats": ("onnx",)},
    "verify": {"images": 16},
}


def recipe(**sections: dict[str, Any]) -> Recipe:
    return parse_recipe({name: {**TREE.get(name, {}), **sections.get(name, {})} for name in {**TREE, **sections}})


class Listener:
    """Keeps what a job tells; may stop it at a stage."""

    def __init__(self, *, stop_at: str | None = None) -> None:
        self.stages: list[str] = []
        self.told: list[tuple[str, float, float]] = []
        self.stop_at = stop_at

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def say(self, text: str) -> None:
        if self.stop_at == self.stages[-1]:
            raise KeyboardInterrupt

    def update(self, text: str, done: float, total: float) -> None:
        self.told.append((text, done, total))
        if self.stop_at == self.stages[-1]:
            raise KeyboardInterrupt


class Hearer(Listener):
    """Keeps what a job says; may stop it at something that begins so."""

    def __init__(self, said: list[str], *, stop_at: str | None = None) -> None:
        super().__init__(stop_at=stop_at)
        self.said = said

    def say(self, text: str) -> None:
        self.said.append(text)
        if self.stop_at is not None and text.startswith(self.stop_at):
            raise KeyboardInterrupt
