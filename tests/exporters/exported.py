"""What the real toolkits wrote of a small network, once for all tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgeprune.artifacts.manifest import Manifest
from edgeprune.models.spec import Model
from edgeprune.progress import Silent


class Saying(Silent):
    """Keeps what is said."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass(frozen=True)
class Exported:
    model: Model
    folder: Path
    manifests: tuple[Manifest, ...]
    calibration: Tensor
    reference: Tensor
    said: tuple[str, ...]

    def of(self, file: str) -> Manifest:
        return next(m for m in self.manifests if m.file == file)

    @property
    def answers(self) -> Tensor:
        with torch.no_grad():
            return self.model.module(self.reference)
