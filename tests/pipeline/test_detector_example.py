"""examples/detector: heads of several outputs, a task and a data set of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from worked_example import checks_of, run_example

from edgeprune.artifacts.manifest import read_manifest

pytestmark = pytest.mark.slow


def test_a_detector_is_pruned_quantized_and_proven(tmp_path: Path) -> None:
    outcome = run_example("detector", tmp_path)
    assert outcome.verdict.outcome == "pass", outcome.verdict
    checks = checks_of(outcome)
    for file, of in checks.items():
        assert of["mean AP at IoU 0.5"].value > 0.7
        outputs = read_manifest(outcome.folder / "export" / file).outputs
        assert [output.of for output in outputs] == ["logits.0", "logits.1", "sides.0", "sides.1"]
