"""`edgeprune probe`, `table` and `compare` as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_job import inside

from edgeprune.latency.tflite_writer import write_operation
from edgeprune.structure.operations import OpSignature

NET = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )
"""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_probed_model_is_in_the_table_and_travels(tmp_path: Path, own_cache: None) -> None:
    (tmp_path / "net.py").write_text(NET)
    assert "empty" in inside("table", "show").out
    done = inside("probe", f"{tmp_path / 'net.py'}:make", "--input-size", "3,16,16", "--json")
    assert done.code == 0, done.err
    probed = done.json
    assert probed["operations_in_table"] > 4
    assert probed["measurement"]["low_s"] <= probed["measurement"]["median_s"] <= probed["measurement"]["high_s"]
    (line,) = inside("table", "show", "--json").json
    assert line["operations"] == probed["operations_in_table"]
    rows = tmp_path / "rows.json"
    exported = inside("table", "export", rows, "--build", "litert", "--json").json
    other = tmp_path / "other.sqlite"
    assert inside("table", "import", rows, "--table", other, "--json").json == {"taken": exported["rows"], "older": 0}
    assert inside("table", "merge", other, "--json").json == {"taken": 0, "older": exported["rows"]}
    assert inside("table", "prune", "--older-than", "1", "--dry-run").out.startswith("0 rows would go")
    assert inside("table", "prune", "--build", "litert", "--json").json == {"rows": exported["rows"], "deleted": True}
    assert "empty" in inside("table", "show").out
    refused = inside("table", "prune")
    assert refused.code == 2
    assert "which rows" in refused.err


def test_compare_is_a_gate(tmp_path: Path) -> None:
    small, large = tmp_path / "small.tflite", tmp_path / "large.tflite"
    for file, channels in ((small, 16), (large, 64)):
        write_operation(OpSignature("conv2d", channels, channels, 24, 24, (3, 3), padding=(1, 1)), file)
    slower = inside("compare", small, large, "--margin", "20", "--json")
    assert slower.code == 1
    assert slower.json["verdict"] == "slower"
    assert slower.json["sure_low"] > 1.2
    faster = inside("compare", large, small, "--margin", "20")
    assert faster.code == 0
    assert "faster by more than 20.0%" in faster.out
    assert "sure at 99%" in faster.out
    unsure = inside("compare", small, small, "--margin", "0.001", "--budget", "3")
    assert unsure.code == 4
    assert "undecided" in unsure.out
    assert inside("compare", small, tmp_path / "no.tflite").code == 2
