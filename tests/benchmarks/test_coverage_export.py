"""The export benchmark: a pruned model's file answers what the model does, and what cannot be exported says why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import coverage_export
from coverage_models import Family


def test_a_pruned_model_is_exported_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage_export, "FORMATS", ("pte",))
    family = Family("starnet", "starnet_s050", 542728, (3, 224, 224))
    record = coverage_export.measure(family, tmp_path)
    assert record["share_removed"] > 0.3
    assert record["unpruned"]["pte"]["sqnr_db"] > 100
    assert record["pruned"]["pte"]["sqnr_db"] > 100
    assert coverage_export._count({"starnet": record}, "pte") == {
        "exported_unpruned": 1,
        "pruned_and_close": 1,
        "families": 1,
    }
