"""A small network, exported once in every format by the real toolkits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_network import images, tiny_model
from torch import Tensor

from edgeprune.artifacts.export import export
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


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, model, said = tmp_path_factory.mktemp("exported"), tiny_model(), list[str]()
    calibration, reference = images(64, 1), images(40, 2)
    manifests = export(
        model,
        folder,
        formats=("onnx", "coreml", "tflite", "pte"),
        int8=True,
        calibration=calibration,
        reference_input=reference,
        progress=Saying(said),
    )
    return Exported(model, folder, tuple(manifests), calibration, reference, tuple(said))
