"""examples/superresolution: a pixel shuffle, and targets larger than their images."""

from __future__ import annotations

from pathlib import Path

import pytest
from worked_example import checks_of, run_example

from edgeprune.artifacts.manifest import read_manifest

pytestmark = pytest.mark.slow


def test_a_net_for_superresolution_is_pruned_quantized_and_proven(tmp_path: Path) -> None:
    outcome = run_example("superresolution", tmp_path)
    assert outcome.verdict.outcome == "pass", outcome.verdict
    for file, of in checks_of(outcome).items():
        assert of["PSNR"].value > 29.7  # bicubic interpolation has 29.67
        assert of["PSNR"].unit == "dB"
        assert read_manifest(outcome.folder / "export" / file).outputs[0].shape in ((1, 48, 48, 3), (1, 3, 48, 48))
