"""A run whose recipe asks for zeros: they stay to the files, and the arbiter says which file is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgeprune
from edgeprune.pruning.unstructured import zeros_of
from edgeprune.recipe import parse_recipe
from edgeprune.runs import open_run

pytestmark = pytest.mark.slow

TREE: dict[str, Any] = {
    "model": {"factory": f"{Path(__file__).with_name('separable_net.py')}:net", "input_size": (1, 16, 16)},
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    "prune": {"target": "3kparams", "method": "magnitude", "scoring_batches": 1},
    "sparse": {"zeros": 0.7},
    "tune": {"epochs": 1},
    "quantize": {"enabled": False},
    "export": {"formats": ("tflite",)},
    "verify": {"images": 16},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> edgeprune.Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return edgeprune.run(parse_recipe(TREE), tmp_path_factory.mktemp("sparse") / "run")


def test_zeros_stay_through_training_and_merging(whole: edgeprune.Outcome) -> None:
    tuned = open_run(whole.folder).record("tune")
    assert tuned is not None
    assert 0.65 < tuned.result["zeros"] <= 0.7
    zeros, weights = zeros_of(edgeprune.load(whole.folder).module)
    assert zeros / weights == pytest.approx(tuned.result["zeros"])


def test_a_net_that_breaks_a_rule_is_exported_dense_and_why_is_told(whole: edgeprune.Outcome) -> None:
    """Digits have one channel (the converter writes a depthwise convolution of them)."""
    exported = open_run(whole.folder).record("export")
    assert exported is not None
    assert exported.result["sparse"]["kept"] == "dense"
    assert "only a 3x3 convolution of 3 channels makes an image channels first" in exported.result["sparse"]["why"]
    assert sorted(path.name for path in (whole.folder / "export").glob("*.tflite*")) == [
        "model_fp32.tflite",
        "model_fp32.tflite.json",
    ]
    assert [f.file for f in whole.verdict.files] == ["model_fp32.tflite"]
    assert whole.verdict.outcome == "pass"
    assert "The fp32 .tflite file is dense" in whole.page.read_text()
