"""A model that is not pruned goes the whole way: measured, quantized, exported, proven and reported as it is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from facts import refused
from small_jobs import FACTORY, Hearer

import edgeprune
from edgeprune.errors import RecipeError, UsageError
from edgeprune.latency.table import LatencyTable
from edgeprune.models.load import load
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe
from edgeprune.report.data import ReportData, read_report
from edgeprune.report.page import render
from edgeprune.runs import open_run, settings_hash
from edgeprune.several_targets import front

pytestmark = pytest.mark.slow

TREE: dict[str, Any] = {
    "model": {"factory": FACTORY, "input_size": (1, 16, 16), "untrained": True},
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    "prune": {"enabled": False},
    "export": {"formats": ("tflite", "onnx")},
    "verify": {"images": 32, "gates": {"int8_agreement": 0.0, "int8_accuracy_drop": False}},
}


def recipe(**sections: dict[str, Any]) -> Recipe:
    return parse_recipe({**TREE, **sections})


@dataclasses.dataclass(frozen=True)
class Ran:
    outcome: edgeprune.Outcome
    said: list[str]
    report: ReportData


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    said: list[str] = []
    outcome = edgeprune.run(recipe(), tmp_path_factory.mktemp("as_it_is") / "run", progress=Hearer(said))
    return Ran(outcome, said, read_report(outcome.page.with_name("report.json")))


def test_every_stage_is_finished_and_the_verdict_passes(whole: Ran) -> None:
    run = open_run(whole.outcome.folder)
    assert all(run.record(stage) for stage in edgeprune.pipeline.PIPELINE.names)
    assert whole.outcome.verdict.outcome == "pass"
    names = {"model_fp32.tflite", "model_int8.tflite", "model_fp32.onnx"}
    assert {file.file for file in whole.outcome.verdict.files} == names


def test_the_plan_is_empty_and_the_weights_are_the_ones_that_were_given(whole: Ran) -> None:
    folder = whole.outcome.folder
    assert edgeprune.read_plan(folder / "prune" / "plan.json").decisions == {}
    given = load(FACTORY, input_size=(1, 16, 16)).module.eval()
    given.load_state_dict(edgeprune.load(folder, stage="load").module.state_dict())
    tuned = edgeprune.load(folder, stage="tune").module
    for name, tensor in given.state_dict().items():
        assert torch.equal(tensor, tuned.state_dict()[name]), name
    tuning = open_run(folder).record("tune")
    assert tuning is not None
    assert tuning.result["epochs"] == 0


def test_nothing_is_probed_and_nothing_is_searched(whole: Ran) -> None:
    """The latency table stays as empty as it was, and no choice is written down."""
    assert list(LatencyTable().settings()) == []
    assert sorted(path.name for path in (whole.outcome.folder / "prune").iterdir()) == [
        "model.safetensors",
        "plan.json",
        "stage.json",
    ]
    probed = open_run(whole.outcome.folder).record("probe")
    assert probed is not None
    assert probed.result.keys() == {"median_s", "quality"}


def test_every_file_is_held_against_the_original_in_turns(whole: Ran) -> None:
    for file in whole.outcome.verdict.files:
        ratio = file.against_original
        assert ratio is not None, file.file
        assert ratio.low <= ratio.ratio <= ratio.high
        assert ratio.denominator.file == "original.tflite"
        latency = next(check for check in file.checks if check.name == "latency")
        assert latency.outcome == "info"  # there is no target to miss
    by_name = {file.file: file.against_original for file in whole.outcome.verdict.files}
    assert by_name["model_fp32.onnx"].numerator.runtime.name == "onnxruntime"  # type: ignore[union-attr]
    shipping = {one.runtime: one for one in whole.outcome.verdict.shipping}
    assert shipping.keys() == {"litert", "onnxruntime"}
    assert shipping["onnxruntime"].file == "model_fp32.onnx"
    assert shipping["litert"].file in ("model_fp32.tflite", "model_int8.tflite")


def test_the_report_speaks_of_no_target_and_of_no_pruned_model(whole: Ran) -> None:
    data = whole.report
    assert not data.pruned
    assert (data.target, data.against_original, data.binding) == (None, None, None)
    assert (data.layers, data.attempts, data.tuning) == ((), (), ())
    assert [point.stage for point in data.stages if not point.is_file] == ["original", "merged"]
    assert len({point.macs for point in data.stages if not point.is_file}) == 1
    assert all(point.latency is not None for point in data.stages)
    page = whole.outcome.page.read_text()
    assert page == render([data])
    for words in ("0.5x", "missed", "What was removed", "What binds", "Pruned model"):
        assert words not in page
    for one in whole.outcome.verdict.shipping:
        assert one.why.split(";")[0] in page
    suites = ET.fromstring((whole.outcome.folder / "report" / "junit.xml").read_bytes())
    assert (suites.get("failures"), suites.get("errors")) == ("0", "0")
    told = {p.get("name") for p in suites.iter("property")}
    assert "ship" in told


def test_the_run_folder_reads_back_as_it_was_written(whole: Ran) -> None:
    run = open_run(whole.outcome.folder)
    assert run.recipe == recipe()
    kept = json.loads((whole.outcome.folder / "run.json").read_text())["recipe"]
    assert kept["prune"] == {"enabled": False}
    again = edgeprune.run(recipe(), whole.outcome.folder, resume=True)
    assert again.verdict == whole.outcome.verdict


def test_the_target_1x_is_the_same_job() -> None:
    as_it_is = recipe(prune={"target": "1x"})
    assert not as_it_is.prunes
    assert as_it_is.tune.epochs == recipe().tune.epochs == 0
    assert as_it_is.latency_target is None


def test_it_is_trained_only_where_the_recipe_says_epochs() -> None:
    assert recipe(tune={"lr": 0.1}).tune.epochs == 0
    assert recipe(tune={"epochs": 3}).tune.epochs == 3
    zeros = {"zeros": 0.5, "layers": "all"}
    assert recipe(prune={"target": "1x"}, sparse=zeros).tune.epochs == 5  # zeros are to be trained around
    assert recipe(prune={"target": "0.5x"}).tune.epochs == 5
    assert recipe(prune={"target": "0.5x"}).with_target("1x").tune.epochs == 0


@pytest.mark.parametrize(
    ("sections", "facts"),
    [
        ({"prune": {"enabled": False, "target": "0.5x"}}, ("`enabled = false`", "target")),
        ({"prune": {"enabled": False, "method": "taylor", "epochs": 2}}, ("epochs, method",)),
        ({"prune": {"enabled": False, "taylor": {"scoring_batches": 2}}}, ("taylor",)),
        ({"sparse": {"zeros": 0.5, "layers": "all"}}, ("prune.enabled", "[sparse]", "1x")),
        ({"prune": {"target": "1.2x"}}, ("1.2x", "1x")),
    ],
)
def test_what_would_have_no_effect_is_refused(sections: dict[str, Any], facts: tuple[object, ...]) -> None:
    with refused(RecipeError, *facts):
        recipe(**sections)


def test_a_front_needs_something_to_prune(tmp_path: Path) -> None:
    with refused(UsageError, "prune.enabled"):
        front(recipe(), ["0.5x", "0.7x"], tmp_path)


def test_runs_of_before_the_switch_go_on() -> None:
    """`prune.enabled` is no part of what a stage of an older run depends on."""
    old = parse_recipe({**TREE, "prune": {}})
    assert settings_hash(old, ("prune",)) == settings_hash(
        parse_recipe({**TREE, "prune": {"enabled": True}}), ("prune",)
    )
    assert settings_hash(old, ("prune",)) != settings_hash(recipe(), ("prune",))
