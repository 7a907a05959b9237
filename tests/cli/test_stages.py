"""Each stage by its own command, on one run folder that `edgeprune prune` began."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_job import RECIPE, Done, inside, stamps, write_job

from edgeprune.artifacts.manifest import read_manifest
from edgeprune.errors import DeviceError, RecipeError, RunError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_measuring")]

ORDER = ("tune", "merge", "quantize", "export", "verify")
TARGET = "25kparams"  # counted: the same on a busy machine


def prune(factory: Path, run: Path, *more: object) -> Done:
    return inside(
        *("prune", f"{factory}:tiny", "--target", TARGET, "--data", "digits", "--input-size", "1,16,16", "--untrained"),
        *("--method", "magnitude", "--out", run, "--json", *more),
    )


OPTIONS = {"tune": ("--epochs", 1), "export": ("--format", "onnx")}


@dataclass(frozen=True)
class Staged:
    """What every command said, and what the folder held after it."""

    factory: Path
    run: Path
    said: dict[str, Done]
    stamps: dict[str, dict[str, tuple[int, bytes]]]


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    folder = tmp_path_factory.mktemp("staged")
    factory, run = write_job(folder).with_name("tiny.py"), folder / "run"
    said, after = {"prune": prune(factory, run)}, {"prune": stamps(run)}
    for stage in ORDER:
        said[f"{stage} too early"] = inside(ORDER[(ORDER.index(stage) + 1) % len(ORDER)], run)
        said[stage] = inside(stage, run, "--json", *OPTIONS.get(stage, ()))
        after[stage] = stamps(run)
    said["report"] = inside("report", run, "--out", folder / "page.html", "--json")
    return Staged(factory, run, said, after)


def test_every_command_does_its_stage_and_no_other(staged: Staged) -> None:
    before: dict[str, tuple[int, bytes]] = {}
    for stage in ("prune", *ORDER):
        assert staged.said[stage].code == 0, staged.said[stage].err
        now = staged.stamps[stage]
        assert set(now) - set(before) == ({"load", "probe", "prune"} if stage == "prune" else {stage})
        assert {name: now[name] for name in before} == before
        before = now


def test_every_command_says_its_result_as_json(staged: Staged) -> None:
    said = {stage: staged.said[stage].json for stage in ("prune", *ORDER)}
    assert said["prune"]["parameters"] <= 25_000
    assert said["prune"]["measured_share"] is None  # counted, not measured
    assert said["prune"]["binds"].startswith("the least reachable is 0.")
    assert said["tune"]["epochs"] == 1
    assert said["merge"]["folded"] == 4
    assert said["quantize"]["images"] == 243  # of 1438: with validation, half of what is not test
    assert list(said["export"]["files"]) == ["model_fp32.onnx"]
    assert said["verify"]["accuracy"].keys() == {"original", "pruned", "tuned", "merged"}
    manifest = read_manifest(staged.run / "export" / "model_fp32.onnx")
    assert said["export"]["files"][manifest.file] == manifest.size_bytes


def test_a_stage_before_its_predecessor_is_refused_with_the_command(staged: Staged) -> None:
    run = staged.run
    staged.said["tune too early"].fails(RunError, "`merge`", "`tune`", f"edgeprune tune {run}")
    staged.said["merge too early"].fails(RunError, "`quantize`", "`merge`", f"edgeprune merge {run}")
    staged.said["quantize too early"].fails(RunError, "`export`", "`quantize`", f"edgeprune quantize {run}")
    staged.said["export too early"].fails(RunError, "`verify`", "`export`", f"edgeprune export {run}")


def test_a_run_made_stage_by_stage_gets_its_report(staged: Staged) -> None:
    assert staged.said["report"].code == 0, staged.said["report"].err
    page = Path(staged.said["report"].json["page"]).read_text()
    assert "model_fp32.onnx" in page
    assert TARGET.replace("kparams", " kparams") in page
    assert f"What binds: {staged.said['prune'].json['binds']}." in page
    assert f"what binds: {staged.said['prune'].json['binds']}" in staged.said["prune"].err
    assert (staged.run / "report" / "junit.xml").is_file()


def test_the_same_commands_again_do_nothing(staged: Staged) -> None:
    before = stamps(staged.run)
    for done in (prune(staged.factory, staged.run), inside("tune", staged.run), inside("verify", staged.run)):
        assert done.code == 0, done.err
    assert inside("export", staged.run, "--format", "onnx").code == 0
    assert stamps(staged.run) == before


def test_other_epochs_repeat_tuning_and_what_follows(staged: Staged, tmp_path: Path) -> None:
    run = Path(shutil.copytree(staged.run, tmp_path / "run"))
    before = stamps(run)
    done = inside("tune", run, "--epochs", 2, "--json")
    assert done.json["epochs"] == 2
    after = stamps(run)
    assert {name: after[name] for name in ("load", "probe", "prune")} == {
        name: before[name] for name in ("load", "probe", "prune")
    }
    assert after["tune"] != before["tune"]
    assert set(after) == {"load", "probe", "prune", "tune"}  # what was made of the old weights is gone
    assert not any((run / stage).exists() for stage in ("merge", "quantize", "export", "verify", "report"))
    inside("verify", run).fails(RunError, "`verify`", "`merge`")
    assert inside("merge", run).code == 0
    assert stamps(run)["merge"] != before["merge"]
    assert (run / "merge" / "model.safetensors").read_bytes() != (
        staged.run / "merge" / "model.safetensors"
    ).read_bytes()


def test_a_refused_command_changes_nothing(staged: Staged) -> None:
    """What was asked for is not remembered when it could not be done."""
    head, before = (staged.run / "run.json").read_bytes(), stamps(staged.run)
    inside("export", staged.run, "--format", "tiff").fails(
        RecipeError, "export.formats", "'tiff'", "tflite (edgeprune)"
    )
    inside("tune", staged.run, "--epochs", -1).fails(RecipeError, "tune.epochs", 0, -1)
    inside("verify", staged.run, "--device", "pixel-9").fails(DeviceError, "'pixel-9'", code=4)
    other = staged.factory.with_name("other.py")
    other.write_text(staged.factory.read_text())
    prune(other, staged.run).fails(RunError, staged.run, "--out")
    inside("run", staged.factory.with_name("recipe.toml"), "--out", staged.run).fails(RunError, staged.run, "--resume")
    assert (staged.run / "run.json").read_bytes() == head
    assert stamps(staged.run) == before


def test_a_missed_gate_is_exit_code_1(staged: Staged, tmp_path: Path) -> None:
    """The recipe of the same run with a limit that no file keeps: only verify and report are done again."""
    run = Path(shutil.copytree(staged.run, tmp_path / "run"))
    before = stamps(run)
    recipe = write_job(
        staged.factory.parent,
        model=RECIPE["model"],
        data={"validation_images": 500, "calibration_images": 256},
        prune={"target": TARGET, "method": "magnitude", "tolerance": 0.03, "scoring_batches": 8},
        tune={"epochs": 1},
        export={"formats": ["onnx"]},
        verify_gates={"size_bytes": 10},
    )
    done = inside("run", recipe, "--out", run, "--resume", "--json")
    assert done.code == 1, done.err
    assert done.json["outcome"] == "fail"
    failed = [c["name"] for f in done.json["verdict"]["files"] for c in f["checks"] if c["outcome"] == "fail"]
    assert failed == ["file size"]
    after = stamps(run)
    assert {name for name in after if after[name] != before[name]} == {"verify", "report"}
    assert "file size" in (run / "report" / "junit.xml").read_text()
    again = inside("verify", run, "--json")  # nothing is done anew, and the verdict is still the same
    assert again.code == 1
    assert again.json == json.loads((run / "verify" / "verdict.json").read_text())
