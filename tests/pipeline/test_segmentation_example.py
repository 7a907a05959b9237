"""examples/segmentation: a U-Net with transposed convolutions and joins, from masks in folders to proven int8 files."""

from __future__ import annotations

from pathlib import Path

import pytest
from worked_example import checks_of, run_example

import edgeprune

pytestmark = pytest.mark.slow


def test_a_unet_is_pruned_quantized_and_proven(tmp_path: Path) -> None:
    outcome = run_example("segmentation", tmp_path)
    assert outcome.verdict.outcome == "pass", outcome.verdict
    checks = checks_of(outcome)
    assert set(checks) == {
        *("model_fp32.tflite", "model_int8.tflite", "model_fp32.pte", "model_int8.pte", "model_fp32.onnx")
    }
    for of in checks.values():
        assert of["mean IoU"].value > 0.7
        assert of["agreement of pixels"].value > 0.97
    cut = edgeprune.read_plan(outcome.folder / "prune" / "plan.json").subnet.units
    assert {"up1:out", "up2:out", "join2.0:out"} <= cut.keys()  # transposed convolutions, and what joins read
