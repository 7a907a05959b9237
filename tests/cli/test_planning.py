"""Planning without the device: from its profile's typical tables, and never said to be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_job import inside, write_job

pytestmark = pytest.mark.slow

LAB = "profile:lab-cortex-a76"
MODEL = (f"{Path(__file__).resolve().parents[2] / 'examples' / 'cifar_resnet.py'}:resnet20", "--input-size", "3,32,32")


def test_a_plan_for_a_device_that_is_not_here_is_predicted_and_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--data", "digits", "--untrained", "--method", "magnitude", "--device", LAB, "--out", run, "--json")
    done = inside("prune", *MODEL, "--target", "0.6x", *options)
    assert done.code == 0, done.err
    assert done.json["measured_share"] is None
    assert done.json["within_tolerance"] is None
    assert "a typical table of ARM64 lab, cortex-a76, never measured on yours" in done.json["predicted"]
    assert "never measured on yours" in done.err  # of the unpruned model, too
    record = json.loads((run / "prune" / "prune.json").read_text())
    assert record["attempts"] == []
    assert record["predicted"]["seconds"] <= 0.6 * record["predicted"]["unpruned_s"]

    predicted = inside("predict", *MODEL, "--plan", run / "prune" / "plan.json", "--device", LAB, "--json")
    assert predicted.code == 0, predicted.err
    assert predicted.json["seconds"] == pytest.approx(record["predicted"]["seconds"])

    for stage, more in (("tune", ("--epochs", 0)), ("merge", ()), ("quantize", ()), ("export", ("--format", "onnx"))):
        done = inside(stage, run, "--json", *more)
        assert done.code == 0, done.err
    inside("verify", run).refused("a device profile is no device", "attach a device")


def test_a_target_that_is_out_of_reach_is_refused_as_predicted(tmp_path: Path) -> None:
    options = ("--data", "digits", "--untrained", "--method", "magnitude", "--device", LAB, "--out", tmp_path / "run")
    done = inside("prune", *MODEL, "--target", "0.01x", *options)
    done.refused("0.01x", "as predicted", "raise the target")


@pytest.mark.parametrize("command", ["run", "front"])
def test_a_whole_run_is_refused_before_any_work(command: str, tmp_path: Path) -> None:
    recipe, out = write_job(tmp_path), tmp_path / "out"
    more = ("--target", "0.7x", "--target", "0.5x") if command == "front" else ()
    done = inside(command, recipe, "--out", out, "--device", LAB, *more)
    done.refused("a device profile is no device", "`edgeprune prune` plan with its typical tables")
    assert not out.exists()
