"""`edgeprune probe`, `table` and `compare` as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_job import inside

import edgeprune
from edgeprune.errors import UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_writer import write_operation
from edgeprune.space.apply import make_plan
from edgeprune.space.find import find_structure
from edgeprune.space.plan import Dropped
from edgeprune.space.subnet import Subnet

pytestmark = pytest.mark.usefixtures("short_measuring")

NET = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 96, 3, padding=1), nn.BatchNorm2d(96), nn.ReLU(),
        nn.Conv2d(96, 96, 3, padding=1), nn.BatchNorm2d(96), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 4),
    )
"""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_probed_model_is_in_the_table_and_travels(tmp_path: Path, own_cache: None) -> None:
    (tmp_path / "net.py").write_text(NET)
    assert "empty" in inside("table", "show").out
    done = inside("probe", f"{tmp_path / 'net.py'}:make", "--input-size", "3,16,16", "--granularity", "8", "--json")
    assert done.code == 0, done.err
    probed = done.json
    assert probed["operations_in_table"] > 4  # of the staircase
    assert probed["whole_models_in_table"] > 1
    assert probed["measurement"]["low_s"] <= probed["measurement"]["median_s"] <= probed["measurement"]["high_s"]
    (line,) = inside("table", "show", "--json").json
    assert line["operations"] == probed["operations_in_table"]
    rows = tmp_path / "rows.json"
    exported = inside("table", "export", rows, "--build", "litert", "--json").json
    other = tmp_path / "other.sqlite"
    assert inside("table", "import", rows, "--table", other, "--json").json == {"taken": exported["rows"], "older": 0}
    assert inside("table", "merge", other, "--json").json == {"taken": 0, "older": exported["rows"]}
    assert inside("table", "delete", "--older-than", "1", "--dry-run").out.startswith("0 rows would go")
    old = inside("table", "prune", "--build", "litert", "--dry-run", "--json")  # as it was called
    assert old.json == {"rows": exported["rows"], "deleted": False}
    assert "edgeprune table delete" in old.err
    assert "  prune" not in inside("table", "--help").out
    deleted = inside("table", "delete", "--build", "litert", "--json")
    assert deleted.json == {"rows": exported["rows"], "deleted": True}
    assert deleted.err == ""
    assert "empty" in inside("table", "show").out
    for name in ("delete", "prune"):
        refused = inside("table", name)
        assert refused.code == 2
        assert "which rows" in refused.err


def test_a_runtime_that_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    model = edgeprune.load(f"{tmp_path / 'net.py'}:make", input_size=(3, 16, 16))
    for ask in (edgeprune.probe, edgeprune.predict):
        with pytest.raises(UsageError, match="'tensorrt'") as caught:
            ask(model, runtime="tensorrt")
        assert "litert (edgeprune)" in (caught.value.hint or "")
    for command in ("probe", "predict"):
        done = inside(command, f"{tmp_path / 'net.py'}:make", "--input-size", "3,16,16", "--runtime", "tensorrt")
        done.refused("'tensorrt'", "executorch (edgeprune)")


def test_a_plan_is_predicted_from_the_table(tmp_path: Path, own_cache: None) -> None:
    (tmp_path / "net.py").write_text(NET)
    model = (f"{tmp_path / 'net.py'}:make", "--input-size", "3,16,16")
    unknown = inside("predict", *model)
    assert unknown.code == 2
    assert "edgeprune probe MODEL" in unknown.err
    probed = inside("probe", *model, "--granularity", "8")
    assert probed.code == 0, probed.err
    assert "whole models, each layer timed in its place" in probed.out

    loaded = edgeprune.load(model[0], input_size=(3, 16, 16))
    again = edgeprune.probe(loaded, granularity=8)  # the command is this function, and nothing lacks any more
    assert f"the table is {again.table}" in probed.out
    assert again.basis in probed.out
    assert again.whole_models_in_table > 1
    structure = find_structure(loaded.module, loaded.example_input())
    removed = Subnet({group.id: tuple(range(64)) for group in structure.groups})
    plan = make_plan(loaded.spec.source, loaded.module, structure, removed)
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    found = inside("predict", *model, "--plan", tmp_path / "plan.json", "--json").json
    whole = inside("predict", *model, "--json").json
    assert 0 < found["seconds"] < whole["seconds"]
    assert whole["of_unpruned"] == 1.0
    assert found["unpruned_s"] == whole["seconds"]
    shown = inside("predict", *model, "--plan", tmp_path / "plan.json")
    assert shown.code == 0, shown.err
    assert "predicted, not measured" in shown.out
    assert f"{found['of_unpruned']:.3f}x of the unpruned model's" in shown.out

    other = plan.model_copy(update={"decisions": {"layer1.0": Dropped()}})
    (tmp_path / "other.json").write_text(other.model_dump_json())
    refused = inside("predict", *model, "--plan", tmp_path / "other.json")
    assert refused.code == 2
    (tmp_path / "larger.json").write_text(plan.model_copy(update={"base_parameters": 7}).model_dump_json())
    larger = inside("predict", *model, "--plan", tmp_path / "larger.json")
    assert larger.code == 2
    assert "made for a model with 7 parameters" in larger.err
    assert "the plan's branch layer1.0 is not in this model" in refused.err


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
