"""The library's own verbs on a run folder: what is done, what is kept, what is done again, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import refused
from safetensors.torch import save_file
from small_jobs import FACTORY, Hearer, Listener, recipe

import edgeprune
from edgeprune.api import write_report
from edgeprune.errors import (
    DeviceError,
    RecipeError,
    RunError,
    TrainingDiverged,
    UsageError,
)
from edgeprune.pipeline import change_recipe, do_stage, is_finished, prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe import TuneSection
from edgeprune.runs import Run, create_run, open_run
from edgeprune.stages.context import Context
from edgeprune.stages.report import gather
from edgeprune.stages.snapshots import HISTORY, read_history
from edgeprune.stages.stage import STAGES
from edgeprune.training.accuracy import top1
from edgeprune.training.loop import tune


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, listener: Listener, _own_cache: None) -> edgeprune.Outcome:
    """A whole run; tests leave it as it is."""
    return edgeprune.run(recipe(), tmp_path_factory.mktemp("whole") / "run", progress=listener)


@pytest.fixture
def folder(whole: edgeprune.Outcome, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.folder, tmp_path / "run"))


def records(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/stage.json")}


def parameters_shown(folder: Path) -> dict[str, int | None]:
    shown = gather(Context(open_run(folder), Silent())).stages
    stages = {"original": "load", "pruned": "prune", "tuned": "tune", "merged": "merge"}
    return {stages[point.stage]: point.parameters for point in shown if point.stage in stages}


def test_the_report_knows_the_accuracy_on_training_images(whole: edgeprune.Outcome) -> None:
    """Every real report said that it was not known: the tests' sample alone had it."""
    (epoch,) = gather(Context(open_run(whole.folder), Silent())).tuning
    assert epoch.train_accuracy is not None
    assert 0 <= epoch.train_accuracy <= 1
    page = whole.page.read_text()
    assert f"train {100 * epoch.train_accuracy:.1f}" in page
    assert "train not known" not in page


def test_whole_run_by_the_library(whole: edgeprune.Outcome, listener: Listener) -> None:
    assert listener.stages == list(STAGES)
    assert [f.file for f in whole.verdict.files] == ["model_fp32.onnx"]
    assert whole.verdict.outcome == "pass"
    assert whole.page.is_file()
    assert all(0 <= done <= total for _, done, total in listener.told)
    model = edgeprune.load(whole.folder)
    assert isinstance(model.module, torch.nn.Module)
    assert parameters_shown(whole.folder) == {
        stage: sum(p.numel() for p in edgeprune.load(whole.folder, stage=stage).module.parameters())
        for stage in ("load", "prune", "tune", "merge")
    }
    assert sum(p.numel() for p in model.module.parameters()) <= 3000
    assert not model.module.training


def test_a_finished_run_is_not_done_again(folder: Path) -> None:
    before, listener = records(folder), Listener()
    outcome = edgeprune.run(recipe(), folder, resume=True, progress=listener)
    assert outcome.verdict.outcome == "pass"
    assert listener.stages == []
    assert records(folder) == before


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"model": {"arguments": {"classes": 12}}}, "load"),
        ({"data": {"calibration_images": 21}}, "load"),
        ({"device": {"threads": 2}}, "probe"),
        ({"prune": {"target": "2kparams"}}, "prune"),
        ({"tune": {"epochs": 2}}, "tune"),
        ({"quantize": {"enabled": True}}, "quantize"),
        ({"export": {"formats": ("onnx", "tflite")}}, "export"),
        ({"verify": {"gates": {"size_bytes": 1e9}}}, "verify"),
        ({}, None),
    ],
)
def test_a_changed_setting_reaches_its_stage_and_what_follows(
    folder: Path, changed: dict[str, Any], first: str | None
) -> None:
    run = change_recipe(open_run(folder), recipe(**changed))
    kept = STAGES if first is None else STAGES[: STAGES.index(first)]
    assert [stage for stage in STAGES if is_finished(run, stage)] == list(kept)


def test_another_seed_is_another_run(folder: Path) -> None:
    run = change_recipe(open_run(folder), recipe().model_copy(update={"seed": 1}))
    assert not any(is_finished(run, stage) for stage in STAGES)


def test_the_verbs_go_on_from_one_another(tmp_path: Path) -> None:
    run = edgeprune.prune(
        FACTORY,
        target="3kparams",
        data="digits",
        out=tmp_path / "run",
        input_size=(1, 16, 16),
        method="magnitude",
        untrained=True,
    )
    assert isinstance(run, Run)
    assert edgeprune.tune(run, epochs=1).result["epochs"] == 1
    assert edgeprune.merge(run.folder).result["folded"] == 1
    assert edgeprune.quantize(str(run.folder)).result["enabled"] is True
    assert list(edgeprune.export(run, formats=("onnx",)).result["files"]) == ["model_fp32.onnx"]
    verdict = edgeprune.verify(run, device="local")
    assert isinstance(verdict, edgeprune.Verdict)
    assert write_report(run).is_file()
    remembered = open_run(run.folder).recipe
    assert (remembered.tune.epochs, remembered.export.formats) == (1, ("onnx",))
    again = edgeprune.prune(
        FACTORY,
        target="3kparams",
        data="digits",
        out=run.folder,
        input_size=(1, 16, 16),
        method="magnitude",
        untrained=True,
    )
    assert again.recipe == remembered  # what later verbs were told is not forgotten
    assert set(records(run.folder)) == set(STAGES)


def test_export_writes_fewer_formats_than_int8_was_asked_for(tmp_path: Path) -> None:
    asked = recipe(quantize={"enabled": True, "formats": ("tflite",)}, export={"formats": ("tflite", "onnx")})
    context = Context(prepare_run(asked, tmp_path / "run", resume=False), Listener())
    for stage in STAGES[: STAGES.index("export")]:
        do_stage(context, stage)
    assert list(edgeprune.export(tmp_path / "run", formats=("onnx",)).result["files"]) == ["model_fp32.onnx"]
    both = edgeprune.export(tmp_path / "run", formats=("onnx", "tflite")).result["files"]
    assert set(both) == {"model_fp32.onnx", "model_fp32.tflite", "model_int8.tflite"}


def test_loading_follows_the_run(folder: Path) -> None:
    x = torch.randn(2, 1, 16, 16)
    merged = edgeprune.load(folder).module(x)
    shutil.rmtree(folder / "merge")
    tuned = edgeprune.load(folder).module(x)
    torch.testing.assert_close(tuned, merged)
    shutil.rmtree(folder / "tune")
    assert not torch.allclose(edgeprune.load(folder).module(x), tuned)
    shutil.rmtree(folder / "prune")
    assert sum(p.numel() for p in edgeprune.load(folder).module.parameters()) > 3000
    shutil.rmtree(folder / "load")
    with refused(RunError, folder):
        edgeprune.load(folder)
    with refused(UsageError, "pretrained", folder):
        edgeprune.load(folder, pretrained=True)


def test_loading_a_stage_and_none_that_is_out_of_date(folder: Path) -> None:
    merged, pruned = edgeprune.load(folder), edgeprune.load(folder, stage="prune")
    assert edgeprune.load(folder, stage="merge").module.state_dict().keys() == merged.module.state_dict().keys()
    assert pruned.module.state_dict().keys() != merged.module.state_dict().keys()  # its batch norms are not folded
    change_recipe(open_run(folder), recipe(tune={"epochs": 2}))
    with refused(RunError, "`merge`", 'stage="prune"', folder):
        edgeprune.load(folder)
    assert edgeprune.load(folder, stage="prune").module.state_dict().keys() == pruned.module.state_dict().keys()
    with refused(RunError, "`tune`", "settings", folder):
        edgeprune.load(folder, stage="tune")
    shutil.rmtree(folder / "tune")
    with refused(RunError, "`tune`", "finished", folder):
        edgeprune.load(folder, stage="tune")
    with refused(UsageError, "`export`"):
        edgeprune.load(folder, stage="export")
    with refused(UsageError, FACTORY):
        edgeprune.load(FACTORY, stage="tune", input_size=(1, 16, 16))


@pytest.mark.parametrize("stage", ["load", "probe", "prune", "tune", "export", "verify"])
def test_ctrl_c_leaves_nothing_half_done(tmp_path: Path, whole: edgeprune.Outcome, stage: str) -> None:
    """Stopped at the first word of a stage: what is finished stays, and going on ends as if nothing had been."""
    folder, place = tmp_path / "run", STAGES.index(stage)
    shutil.copytree(whole.folder, folder, ignore=shutil.ignore_patterns(*STAGES[place:]))
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(recipe(), folder, resume=True, progress=Listener(stop_at=stage))
    assert set(records(folder)) == set(STAGES[:place])
    assert not (folder / stage).exists()
    assert not list(folder.rglob(".part-*"))
    if stage == "tune":
        assert edgeprune.tune(folder).result["epochs"] == 1
        weights = "tune/model.safetensors"
        assert (folder / weights).read_bytes() == (whole.folder / weights).read_bytes()


def test_a_stage_that_fails_leaves_nothing(folder: Path) -> None:
    before = records(folder)
    with refused(TrainingDiverged, "loss", "`lr`"):
        edgeprune.tune(folder, lr=1000.0, warmup=0)
    assert set(records(folder)) == {"load", "probe", "prune"}
    assert records(folder)["prune"] == before["prune"]
    assert not (folder / "tune").exists()
    assert edgeprune.tune(folder, lr=0.05, warmup=0.05).result["epochs"] == 1


def test_a_latency_target_after_a_counted_one(folder: Path) -> None:
    """The layers that the first target did not need measured are measured then."""
    before, listener = records(folder), Listener(stop_at="tune")
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(recipe(prune={"target": "0.7x", "tolerance": 0.9}), folder, resume=True, progress=listener)
    assert listener.stages == ["prune", "tune"]
    assert records(folder)["probe"] == before["probe"]
    record = open_run(folder).record("prune")
    assert record is not None
    assert record.result["measured_share"] > 0
    assert any("each layer in its place" in text for text, _, _ in listener.told)


def test_part_files_of_a_killed_process_go(folder: Path) -> None:
    (folder / ".part-abc").write_bytes(b"half")
    edgeprune.run(recipe(), folder, resume=True)
    assert not (folder / ".part-abc").exists()


def test_a_run_is_begun_again_only_while_nothing_is_finished(tmp_path: Path, folder: Path) -> None:
    create_run(tmp_path / "new", recipe(), {})
    assert prepare_run(recipe(tune={"epochs": 9}), tmp_path / "new", resume=False).recipe.tune.epochs == 9
    with refused(RunError, folder, "--resume"):
        prepare_run(recipe(), folder, resume=False)


def test_refused_before_anything_is_touched(folder: Path) -> None:
    head, before = (folder / "run.json").read_bytes(), records(folder)
    with refused(DeviceError, "'phone'", code=4):
        edgeprune.verify(folder, device="phone")
    with refused(RecipeError, "tune.epoch", "tune.epochs"):
        edgeprune.tune(folder, epoch=3)
    with refused(RunError, folder, "--out"):
        edgeprune.prune("resnet18", target="0.5x", data="digits", out=folder)
    with refused(RunError, folder / "prune", "run.json"):
        edgeprune.tune(folder / "prune")
    assert (folder / "run.json").read_bytes() == head
    assert records(folder) == before


def test_a_checkpoint_that_was_replaced_begins_the_run_anew_and_one_that_is_gone_does_not(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    module = edgeprune.load(FACTORY, input_size=(1, 16, 16)).module
    save_file(module.state_dict(), weights)
    given = recipe(model={"checkpoint": str(weights)})
    run = prepare_run(given, tmp_path / "run", resume=False)
    context = Context(run, Listener())
    do_stage(context, "load")
    assert is_finished(run, "load")
    moved = weights.rename(tmp_path / "moved.safetensors")
    assert is_finished(run, "load")  # the run needs it no more
    save_file({name: value + 1 for name, value in module.state_dict().items()}, weights)
    assert not is_finished(run, "load")
    again = prepare_run(given, tmp_path / "run", resume=True)
    do_stage(Context(again, Listener()), "load")
    loaded = edgeprune.load(tmp_path / "run").module.state_dict()
    assert all(torch.equal(loaded[name], value + 1) for name, value in module.state_dict().items())
    moved.replace(weights)
    assert not is_finished(again, "load")


def test_retraining_that_does_harm_is_told_and_not_kept(tmp_path: Path) -> None:
    context = Context(prepare_run(recipe(), tmp_path / "first", resume=False), Listener())
    do_stage(context, "load")
    net, none = context.model("load").module, context.splits.train.take(0)
    settings = TuneSection(epochs=20, lr=0.1, warmup=0)
    learned = tune(net, None, context.splits.train, none, settings, seed=0, snapshots=None).module
    save_file(learned.state_dict(), tmp_path / "learned.safetensors")

    def tuned(lr: float) -> tuple[dict[str, Any], list[str], Context]:
        said = list[str]()
        checkpoint = {"checkpoint": str(tmp_path / "learned.safetensors")}
        wanted = recipe(model=checkpoint, tune={"lr": lr, "warmup": 0.0 if lr > 1 else 0.05})
        context = Context(prepare_run(wanted, tmp_path / f"at-{lr}", resume=False), Hearer(said))
        for stage in STAGES[: STAGES.index("merge")]:
            do_stage(context, stage)
        told = json.loads((context.run.folder / "tune" / "stage.json").read_text())["result"]
        assert any("steps the learning rate rises to 0.01" in text for text in said) == (lr == 0.02)
        return told, [text for text in said if "`lr` in [tune]" in text], context

    told, harm, context = tuned(3.0)
    assert told["last"]["validation"] < told["began"]
    assert told["kept"] == 0
    assert len(harm) == 1
    assert f"{100 * told['began']:.2f} %" in harm[0]
    assert top1(context.model("tune").module, context.splits.validation) == told["began"]
    assert not any(record.kept for record in read_history(context.file("tune", HISTORY)))
    told, harm, context = tuned(0.02)
    history = read_history(context.file("tune", HISTORY))
    assert [record.epoch for record in history if record.kept] == [told["kept"]]
    assert top1(context.model("tune").module, context.splits.validation) == history[told["kept"] - 1].validation
    assert harm == []


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"regrow": 0.3}, ("regrow", "`epochs`")),
        ({"regrow": 1.0, "epochs": 2}, ("prune.regrow", 1)),
        ({"regrow": 0.3, "epochs": 2}, ("regrow", "one turn")),
        ({"method": "auto", "epochs": 2}, ("`auto`", "epochs")),
        ({"interval": 0, "epochs": 2}, ("prune.interval", 1)),
        ({"method": "reprune", "allocator": "knapsack"}, ("reprune", "`knapsack`")),
        ({"method": "auto", "allocator": "uniform"}, ("auto", "allocator")),
        ({"branches": True, "allocator": "uniform"}, ("branches", "`uniform`")),
    ],
)
def test_settings_of_pruning_that_do_not_go_together(settings: dict[str, Any], facts: tuple[object, ...]) -> None:
    with refused(RecipeError, *facts):
        recipe(prune=settings)
