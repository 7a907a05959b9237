"""A model written after others by one child is the same file as by a child of its own."""

from __future__ import annotations

from pathlib import Path

import coremltools
import pytest
from exported import Exported
from tiny_network import images, tiny_model
from torch import nn

from edgeprune.artifacts.export import export_each
from edgeprune.recipe import Format

pytestmark = pytest.mark.slow


def another() -> nn.Module:
    layers = (nn.Conv2d(3, 7, 5, 2), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 5))
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("name", ["onnx", "tflite", "pte", "coreml"])
def test_what_was_converted_before_changes_nothing(exported: Exported, tmp_path: Path, name: Format) -> None:
    """The child is the one that all tests of this process share (`warm_toolkits`)."""
    for folder, model in (("before", tiny_model().with_module(another())), ("again", exported.model)):
        done = export_each(
            model,
            tmp_path / folder,
            formats=(name,),
            int8=(name,),
            calibration=exported.calibration if folder == "again" else images(8, 3),
            reference_input=exported.reference,
        )
        assert done.not_written == ()
    for manifest in done.manifests:
        first, again = exported.folder / manifest.file, tmp_path / "again" / manifest.file
        if name == "coreml":  # it draws names by chance, and orders what has no order by the process
            assert coremltools.utils.load_spec(str(first)) == coremltools.utils.load_spec(str(again))
            weights = "Data/com.apple.CoreML/weights/weight.bin"
            assert (first / weights).read_bytes() == (again / weights).read_bytes()
        else:
            assert first.read_bytes() == again.read_bytes()
