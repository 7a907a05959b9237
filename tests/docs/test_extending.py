"""The toys of docs/extending.md, installed and run as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import refused
from pages import code_in, install, section_of
from torch import nn
from typer.testing import CliRunner

from edgeprune.artifacts.export import export_each
from edgeprune.cli import app
from edgeprune.devices.discovery import find_devices, known_ids, open_device
from edgeprune.devices.jobs import runtime_build
from edgeprune.errors import DeviceError, RecipeError, UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.protocol import measure
from edgeprune.latency.tflite_writer import write_operation
from edgeprune.models.spec import Model, ModelSpec, Preprocessing
from edgeprune.pipeline import change_recipe, do_stage, is_finished, prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import lock, open_run
from edgeprune.space.subnet import Subnet
from edgeprune.stages.context import Context
from edgeprune.stages.stage import PIPELINE
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.registry import task_of

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from small_jobs import recipe


def test_a_new_stage(tmp_path: Path) -> None:
    names: dict[str, Any] = {"recipe": recipe(), "out": tmp_path / "run"}
    (code,) = re.findall(r"```python\n(.*?)```", section_of("extending.md", "A new stage"), re.DOTALL)
    exec(compile(code, "docs/extending.md", "exec"), names)
    assert names["outcome"].verdict.outcome == "pass"
    run = open_run(tmp_path / "run")
    record = run.record("zeros")
    assert record is not None
    assert record.result == json.loads((run.stage_folder("zeros") / "zeros.json").read_text())
    with_zeros = PIPELINE.with_stage(names["ZEROS"], after="merge")
    assert all(is_finished(run, name, pipeline=with_zeros) for name in with_zeros.names)
    changed = change_recipe(run, recipe(quantize={"formats": ()}))
    again = [name for name in with_zeros.names if not is_finished(changed, name, pipeline=with_zeros)]
    assert again == ["zeros", "quantize", "export", "verify", "report"]


def toy() -> Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    spec = ModelSpec(
        source="toy:net",
        input_size=(3, 8, 8),
        num_classes=2,
        labels=("a", "b"),
        preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3),
    )
    return Model(spec, net)


def test_a_new_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"prune": {"method": "l1", "target": "1kparams", "minimum_width": 1, "granularity": 1}}
    with pytest.raises(UsageError, match="'l1'"):
        recipe(**tree)
    install(code_in("extending.md", "A new method"), "l1-method", tmp_path / "site", monkeypatch)
    plain = pruned_by(recipe(**tree), tmp_path / "plain")
    tree["prune"]["l1"] = {"spare": 2}
    spared = pruned_by(recipe(**tree), tmp_path / "spared")
    assert plain.units
    assert all(not {0, 1} & set(units) for units in spared.units.values())
    assert plain != spared
    tree["prune"]["l1"] = {"spore": 2}
    with pytest.raises(UsageError, match=r"prune\.l1\.spore") as caught:
        recipe(**tree)
    assert "spare" in (caught.value.hint or "")


def test_a_new_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "things"}, "task": {"name": "counting"}}
    with refused(RecipeError, "task.name", "'counting'"):
        parse_recipe(tree)
    install(code_in("extending.md", "A new task"), "counting-task", tmp_path / "site", monkeypatch)
    objective = Objective(task_of(parse_recipe(tree).task))
    truth, answers = torch.tensor([[1.0], [2.0], [3.0], [6.0]]), torch.tensor([[1.0], [2.0], [4.0], [5.0]])
    objective.check(answers, truth)
    rows = objective.finished(objective.rows(answers, truth))
    assert objective.measured(rows) == 0.5
    assert objective.metric.told(0.5) == "0.5 things"
    assert objective.chance(rows) == 1.5
    assert objective.loss(answers, truth).item() == 0.5
    with refused(RecipeError, "task.most"):
        task_of(parse_recipe({**tree, "task": {"name": "counting", "most": 3}}).task)


def pruned_by(recipe: Recipe, folder: Path) -> Subnet:
    """What goes by a recipe."""
    with lock(folder):
        context = Context(prepare_run(recipe, folder, resume=False), Silent(), trust=True)
        for stage in PIPELINE.up_to("prune"):
            do_stage(context, stage.name)
    return context.plan.subnet


def test_a_new_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}, "export": {"formats": ["tflite", "pt2"]}}
    with pytest.raises(UsageError, match="'pt2'"):
        parse_recipe(tree)
    install(code_in("extending.md", "A new exporter"), "pt2-exporter", tmp_path / "site", monkeypatch)
    assert parse_recipe(tree).export.formats == ("tflite", "pt2")
    model, images = toy(), torch.rand(3, 3, 8, 8)
    done = export_each(model, tmp_path / "out", formats=("pt2",), int8=(), calibration=None, reference_input=images)
    assert [(m.format, m.file, m.inputs[0].shape) for m in done.manifests] == [("pt2", "model_fp32.pt2", (1, 3, 8, 8))]
    written = torch.export.load(tmp_path / "out" / "model_fp32.pt2").module()
    with torch.no_grad():
        assert torch.equal(written(images[:1]), model.module(images[:1]))
    rows = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert next(row for row in rows if row["what"] == "format pt2")["ok"]


@pytest.fixture
def cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install(code_in("extending.md", "A new device kind"), "core-devices", tmp_path / "site", monkeypatch)


@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset here")
def test_a_new_device_kind(cores: None, tmp_path: Path) -> None:
    (first, *_) = [id for id in known_ids() if id.startswith("core:")]
    facts = next(facts for facts in find_devices() if facts.id == first)
    assert (facts.kind, facts.cores, facts.ready) == ("core", 1, True)
    assert facts.fingerprint != open_device("local").facts().fingerprint
    listed = json.loads(CliRunner().invoke(app, ["devices", "--json"]).stdout)
    assert first in [one["id"] for one in listed]

    said: list[str] = []
    with_python = [facts.python, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    open_device(first).run(with_python, timeout_s=60, on_line=said.append)
    assert said == [f"[{first.removeprefix('core:')}]"]

    file = tmp_path / "relu.tflite"
    write_operation(OpSignature("activation", 8, 8, height=4, width=4, function="relu"), file)
    device = open_device(first)
    (measured,) = measure(device, [file], runtime="litert", protocol="quick")
    assert measured.device == facts.fingerprint
    assert measured.median_s > 0
    assert measured.runtime == runtime_build(device, "litert")


def test_a_device_that_a_kind_does_not_have(cores: None) -> None:
    with pytest.raises(DeviceError, match="'4096'") as caught:
        open_device("core:4096")
    assert caught.value.exit_code == 4
    with pytest.raises(DeviceError, match="'cpre:0'") as caught:
        open_device("cpre:0")
    assert "`core:0`" in (caught.value.hint or "")


def test_a_kind_that_does_not_load_is_told_and_hides_no_other(
    cores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(broken("farm"), "farm", tmp_path / "farm", monkeypatch)
    listed = {facts.id: facts for facts in find_devices()}
    assert not listed["farm"].ready
    assert "nothing_of_this_name" in listed["farm"].reason
    assert "core:0" in listed
    with pytest.raises(UsageError, match="nothing_of_this_name") as caught:
        open_device("farm:1")
    assert caught.value.where == "farm"


@pytest.mark.parametrize("kind", ["core", "ssh"])
def test_two_packages_of_one_kind(cores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    install(broken(kind), "rival", tmp_path / "rival", monkeypatch)
    reasons = [facts.reason for facts in find_devices() if facts.id == kind]
    assert len(reasons) == 1
    assert "rival (nothing_of_this_name:Kind)" in reasons[0]
    assert ("core-devices (core_devices:Cores)" if kind == "core" else "edgeprune") in reasons[0]


def broken(kind: str) -> dict[str, str]:
    return {"pyproject.toml": f'[project.entry-points."edgeprune.devices"]\n{kind} = "nothing_of_this_name:Kind"\n'}
