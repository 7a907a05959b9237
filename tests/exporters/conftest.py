"""A small network, exported once in every format by the real toolkits."""

from __future__ import annotations

import pytest
from exported import Exported, Saying
from exporting import export
from tiny_network import images, tiny_model


@pytest.fixture(scope="module", autouse=True)
def _toolkits_are_warm(warm_toolkits: None) -> None: ...


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
