"""The library's own verbs on a run folder: what is done, what is kept, what is done again, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import edgeprune
from edgeprune.api import write_report
from edgeprune.errors import (
    DataError,
    DeviceError,
    EdgePruneError,
    ModelError,
    RecipeError,
    RunError,
    TargetError,
    TrainingDiverged,
    UsageError,
)
from edgeprune.pipeline import change_recipe, do_stage, is_finished, prepare_run
from edgeprune.progress import Silent
from edgeprune.pruning.allocate import EXCHANGES
from edgeprune.recipe import Recipe, TuneSection, parse_recipe
from edgeprune.runs import STAGES, Run, Stage, create_run, open_run
from edgeprune.stages.arms import ARMS
from edgeprune.stages.context import Context
from edgeprune.stages.trials import length_of
from edgeprune.training.loop import tune

FACTORY = f"{Path(__file__).with_name('two_convolutions.py')}:net"
TREE: dict[str, Any] = {
    "model": {"factory": FACTORY, "input_size": (1, 16, 16)},
    "data": {"source": "digits", "validation_images": 50, "calibration_images": 20},
    "prune": {"target": "3kparams", "method": "magnitude", "scoring_batches": 1},
    "tune": {"epochs": 1},
    "quantize": {"enabled": False},
    "export": {"formats": ("onnx",)},
    "verify": {"images": 16},
}


def recipe(**sections: dict[str, Any]) -> Recipe:
    return parse_recipe({name: {**TREE.get(name, {}), **sections.get(name, {})} for name in {**TREE, **sections}})


class Listener:
    """Keeps what a job tells; may stop it at a stage."""

    def __init__(self, *, stop_at: str | None = None) -> None:
        self.stages: list[str] = []
        self.told: list[tuple[str, float, float]] = []
        self.stop_at = stop_at

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def say(self, text: str) -> None:
        if self.stop_at == self.stages[-1]:
            raise KeyboardInterrupt

    def update(self, text: str, done: float, total: float) -> None:
        self.told.append((text, done, total))
        if self.stop_at == self.stages[-1]:
            raise KeyboardInterrupt


class Hearer(Listener):
    """Keeps what a job says; may stop it at something that begins so."""

    def __init__(self, said: list[str], *, stop_at: str | None = None) -> None:
        super().__init__(stop_at=stop_at)
        self.said = said

    def say(self, text: str) -> None:
        self.said.append(text)
        if self.stop_at is not None and text.startswith(self.stop_at):
            raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


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


def test_whole_run_by_the_library(whole: edgeprune.Outcome, listener: Listener) -> None:
    assert listener.stages == list(STAGES)
    assert [f.file for f in whole.verdict.files] == ["model_fp32.onnx"]
    assert whole.verdict.outcome == "pass"
    assert whole.page.is_file()
    assert all(0 <= done <= total for _, done, total in listener.told)
    model = edgeprune.load(whole.folder)
    assert isinstance(model.module, torch.nn.Module)
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
    folder: Path, changed: dict[str, Any], first: Stage | None
) -> None:
    run = change_recipe(open_run(folder), recipe(**changed))
    kept = STAGES if first is None else STAGES[: STAGES.index(first)]
    assert [stage for stage in STAGES if is_finished(run, stage)] == list(kept)


def test_another_seed_is_another_run(folder: Path) -> None:
    run = change_recipe(open_run(folder), recipe().model_copy(update={"seed": 1}))
    assert not any(is_finished(run, stage) for stage in STAGES)


def test_the_verbs_go_on_from_one_another(tmp_path: Path) -> None:
    run = edgeprune.prune(
        FACTORY, target="3kparams", data="digits", out=tmp_path / "run", input_size=(1, 16, 16), method="magnitude"
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
        FACTORY, target="3kparams", data="digits", out=run.folder, input_size=(1, 16, 16), method="magnitude"
    )
    assert again.recipe == remembered  # what later verbs were told is not forgotten
    assert set(records(run.folder)) == set(STAGES)


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
    with pytest.raises(RunError, match="no stage of this run is finished"):
        edgeprune.load(folder)
    with pytest.raises(UsageError, match="takes no options, got pretrained"):
        edgeprune.load(folder, pretrained=True)


@pytest.mark.parametrize("stage", ["load", "probe", "prune", "tune", "export", "verify"])
def test_ctrl_c_leaves_nothing_half_done(tmp_path: Path, whole: edgeprune.Outcome, stage: Stage) -> None:
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
    with pytest.raises(EdgePruneError, match="the loss is") as caught:
        edgeprune.tune(folder, lr=1e30, warmup=0)
    assert "lower `lr`" in str(caught.value)
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
    with pytest.raises(RunError, match="a run is already here"):
        prepare_run(recipe(), folder, resume=False)


def test_refused_before_anything_is_touched(folder: Path) -> None:
    head, before = (folder / "run.json").read_bytes(), records(folder)
    with pytest.raises(DeviceError, match="no device"):
        edgeprune.verify(folder, device="phone")
    with pytest.raises(RecipeError, match=r"tune\.epoch"):
        edgeprune.tune(folder, epoch=3)
    with pytest.raises(RunError, match="another model"):
        edgeprune.prune("resnet18", target="0.5x", data="digits", out=folder)
    with pytest.raises(RunError, match="no run here"):
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


TURNS = {
    "method": "reprune",
    "allocator": "scales",
    "epochs": 2,
    "interval": 1,
    "regrow": 0.3,
    "granularity": 1,
    "minimum_width": 2,
}


def test_pruned_while_it_trains_in_one_cycle_and_resumed_by_turn(tmp_path: Path) -> None:
    """REPrune as published: the scales' layer sparsity, regrowth, and no fine-tuning of its own."""
    wanted = recipe(prune={"target": "2kparams", **TURNS})

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said, stop_at="turn 2"))
    assert [text.split(":")[0] for text in said if text.startswith("turn")] == ["turn 1", "turn 2"]
    said.clear()
    outcome = edgeprune.run(wanted, tmp_path / "run", resume=True, progress=Hearer(said))
    assert [text.split(":")[0] for text in said if text.startswith("turn")] == ["turn 2"]
    assert re.search(r"turn 2: chosen at .*, [1-9]\d* units and 0 branches out, \d+ of \d+ units back", "\n".join(said))
    module = edgeprune.load(outcome.folder).module
    assert sum(p.numel() for p in module.parameters()) <= 2000
    history = json.loads((outcome.folder / "tune" / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [3]  # the third of one cycle of three
    assert not list(outcome.folder.glob("*.snapshots"))
    longer = change_recipe(open_run(outcome.folder), recipe(prune={"target": "2kparams", **TURNS}, tune={"epochs": 2}))
    assert not is_finished(longer, "prune")  # its epochs are part of the training


def test_pruned_step_by_step_in_one_cycle(tmp_path: Path) -> None:
    """Without regrowth every turn takes more than the one before, and the last choice is the target's."""
    said: list[str] = []
    turns = {key: value for key, value in TURNS.items() if key not in ("method", "allocator", "regrow")}
    outcome = edgeprune.run(recipe(prune={"target": "2kparams", **turns}), tmp_path / "run", progress=Hearer(said))
    shares = [re.fullmatch(r"turn (\d): chosen at (0\.\d+)x, (\d+) units and 0 branches out", text) for text in said]
    (first, second) = (match for match in shares if match)
    assert (first[1], second[1]) == ("1", "2")
    assert float(second[2]) == pytest.approx(float(first[2]) ** 2, abs=0.002)  # goal^(1/3), goal^(2/3)
    assert int(second[3]) > int(first[3]) > 0
    assert sum(p.numel() for p in edgeprune.load(outcome.folder).module.parameters()) <= 2000


def test_netadapt_trains_its_proposals_on_other_images_than_it_judges_by(tmp_path: Path) -> None:
    asked = {"target": "3kparams", "allocator": "netadapt", "granularity": 4, "minimum_width": 4}
    with pytest.raises(DataError, match="too few are left") as error:
        edgeprune.run(recipe(prune={**asked, "judging_images": 5000}), tmp_path / "few", progress=Silent())
    assert "lower prune.judging_images" in str(error.value.hint)
    outcome = edgeprune.run(recipe(prune=asked), tmp_path / "run", progress=Silent())
    assert sum(p.numel() for p in edgeprune.load(outcome.folder).module.parameters()) <= 3000


def test_retraining_that_does_harm_is_told(tmp_path: Path) -> None:
    context = Context(prepare_run(recipe(), tmp_path / "first", resume=False), Listener())
    do_stage(context, "load")
    net, none = context.model("load").module, context.splits.train.take(0)
    settings = TuneSection(epochs=20, lr=0.1, warmup=0)
    learned = tune(net, None, context.splits.train, none, settings, seed=0, snapshots=None).module
    save_file(learned.state_dict(), tmp_path / "learned.safetensors")

    def pruned(lr: float) -> tuple[dict[str, Any], list[str]]:
        said = list[str]()
        checkpoint = {"checkpoint": str(tmp_path / "learned.safetensors")}
        wanted = recipe(model=checkpoint, tune={"lr": lr, "warmup": 0.0 if lr > 1 else 0.05})
        context = Context(prepare_run(wanted, tmp_path / f"at-{lr}", resume=False), Hearer(said))
        for stage in STAGES[: STAGES.index("merge")]:
            do_stage(context, stage)
        told = json.loads((context.run.folder / "tune" / "stage.json").read_text())["result"]
        assert any("steps the learning rate rises to 0.01" in text for text in said) == (lr == 0.02)
        return told, [text for text in said if "did harm" in text]

    told, harm = pruned(3.0)
    assert told["last"]["validation"] < told["began"]
    assert harm == [
        f"re-training did harm: validation {told['began']:.2%} before, {told['last']['validation']:.2%} after; "
        "lower `lr` in [tune] (it is 3), or raise `epochs`"
    ]
    told, harm = pruned(0.02)
    assert told["last"]["validation"] >= told["began"]
    assert harm == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regrow": 0.3}, "say for how many `epochs`"),
        ({"regrow": 1.0, "epochs": 2}, "less than 1"),
        ({"regrow": 0.3, "epochs": 2}, "there is one turn"),
        ({"method": "auto", "epochs": 2}, "no turns"),
        ({"interval": 0, "epochs": 2}, "greater than or equal to 1"),
        ({"method": "reprune", "allocator": "knapsack"}, "gives none"),
        ({"method": "auto", "allocator": "uniform"}, "allocators of its own"),
        ({"branches": True, "allocator": "uniform"}, "lets no branch go"),
    ],
)
def test_settings_of_pruning_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(prune=settings)


AUTO = {"target": "4kparams", "method": "auto", "auto_minutes": 0.05, "granularity": 4, "minimum_width": 2}


def test_a_target_out_of_reach_is_told_before_the_first_turn(tmp_path: Path) -> None:
    said: list[str] = []
    wanted = recipe(prune={"target": "0.1kparams", "epochs": 3, "interval": 1})
    with pytest.raises(TargetError, match=r"0\.\d+x cannot be reached: .* would take 0\.\d+x"):
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said))
    assert not [text for text in said if text.startswith("turn")]


def test_a_target_that_no_scales_can_reach_is_told_before_the_first_turn(tmp_path: Path) -> None:
    """Of an untrained net all scales are equal: nothing is chosen in the first turn, but what can go is known."""
    said: list[str] = []
    wanted = recipe(prune={"target": "0.9kparams", **TURNS})  # two of 16 units behind the norm leave 960 parameters
    with pytest.raises(TargetError, match=r"0\.\d+x cannot be reached: .* would take 0\.18\dx") as error:
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said))
    assert "prune.allocator = 'judged'" in str(error.value.hint)
    assert not [text for text in said if text.startswith("turn")]


@pytest.mark.parametrize("turns", [{}, {key: TURNS[key] for key in ("epochs", "interval", "regrow")}])
def test_scales_that_are_not_there_are_told_before_anything_is_measured(turns: dict[str, Any], tmp_path: Path) -> None:
    listener = Listener()
    model = {"factory": f"{Path(__file__).with_name('two_convolutions.py')}:plain"}
    wanted = recipe(model=model, prune={"method": "reprune", "allocator": "scales", **turns})
    with pytest.raises(ModelError, match="no layer that can be pruned has a batch norm"):
        edgeprune.run(wanted, tmp_path / "run", progress=listener)
    assert listener.stages == ["load"]


def test_equal_scales_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    listener = Listener()
    with pytest.raises(ModelError, match="all scales of batch norms are equal"):
        edgeprune.run(recipe(prune={"allocator": "scales"}), tmp_path / "run", progress=listener)
    assert listener.stages == ["load"]


def test_auto_tries_only_what_can_do_as_it_is_asked(tmp_path: Path) -> None:
    wanted = recipe(prune={**AUTO, "branches": True})
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer([], stop_at="trial 1, magnitude (judged)"))
    (file,) = (tmp_path / "run").glob("prune.snapshots/*/trials.json")
    left_out = json.loads(file.read_text())["left_out"]
    assert set(left_out) == {str(arm) for arm in ARMS if arm.allocator != "judged"}
    assert "the recipe asks for that" in left_out["taylor (knapsack)"]


def test_choices_of_auto_share_the_time_and_are_kept(tmp_path: Path) -> None:
    """In three seconds, of which half may go into choices, the ways down leave little or nothing for exchanges."""
    wanted, said = recipe(prune=AUTO), list[str]()
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said, stop_at="not tried: reprune (scales)"))
    (file,) = (tmp_path / "run").glob("prune.snapshots/*/choices.json")
    choices = json.loads(file.read_text())
    assert set(choices["made"]) == {"taylor (knapsack)", "magnitude (uniform)"}  # the others exchange yet
    assert choices["exchanges"] is None
    choices["made"]["taylor (knapsack)"]["loss"] = 123.0
    file.write_text(json.dumps(choices))
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", resume=True, progress=Hearer(said, stop_at="trial 1"))
    choices = json.loads(file.read_text())
    assert choices["made"]["taylor (knapsack)"]["loss"] == 123.0  # what was chosen is not chosen again
    assert set(choices["made"]) == {str(arm) for arm in ARMS[:-1]}
    assert 0 <= choices["exchanges"] <= EXCHANGES
    assert (choices["exchanges"] < EXCHANGES) == any("prune.auto_minutes is short: " in text for text in said)


def test_choices_of_auto_stand_where_the_training_is_changed(tmp_path: Path) -> None:
    """As the advice is where trials diverge: they do not read the learning rate."""
    said: list[str] = []
    for rate in (0.05, 0.01):
        with pytest.raises(KeyboardInterrupt):
            edgeprune.run(
                recipe(prune=AUTO, tune={"lr": rate}),
                tmp_path / "run",
                resume=rate < 0.05,
                progress=Hearer(said, stop_at="trial 1"),
            )
    assert len([text for text in said if text.startswith("not tried")]) == 1
    assert len([text for text in said if text.startswith("trial 1, taylor (judged)")]) == 2


def test_auto_takes_what_does_best_on_validation_images_and_resumes_by_trial(tmp_path: Path) -> None:
    wanted = recipe(prune=AUTO)

    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said, stop_at="trial 1, taylor (knapsack)"))
    before = [text for text in said if text.startswith("trial")]
    said.clear()
    outcome = edgeprune.run(wanted, tmp_path / "run", resume=True, progress=Hearer(said))
    after = [text for text in said if text.startswith("trial")]
    assert not set(before[:-1]) & set(after)  # what was tried is not tried again
    trials = json.loads((outcome.folder / "prune" / "trials.json").read_text())
    rounds: dict[int, dict[tuple[str, str], float]] = {}
    for trial in trials["done"]:
        rounds.setdefault(trial["round"], {})[tuple(trial["arm"])] = trial["validation"]
    assert [len(scores) for scores in rounds.values()] == [5, 3, 2]
    there = len(Context(open_run(outcome.folder), Silent()).splits.train)
    assert {(trial["round"], trial["images"]) for trial in trials["done"]} == {
        (number, length_of(trials["images"] * 2 ** (number - 1), there, wanted.tune.batch_size).trained)
        for number in (1, 2, 3)
    }
    assert "all scales of batch norms are equal" in trials["left_out"]["reprune (scales)"]  # the net was never trained
    for number in (1, 2):
        assert min(rounds[number][arm] for arm in rounds[number + 1]) >= max(
            score for arm, score in rounds[number].items() if arm not in rounds[number + 1]
        )
    record = json.loads((outcome.folder / "prune" / "prune.json").read_text())
    best = rounds[3][record["method"], record["allocator"]]
    assert best == max(rounds[3].values())
    assert f"({record['allocator']}) was chosen: {best:.2%} of the validation images" in outcome.page.read_text()


def test_auto_whose_trials_all_diverge_picks_nothing_and_a_single_one_that_did_not(tmp_path: Path) -> None:
    """The trials are written down as diverged: a rate at which all pruned models diverge and the whole one does not,
    which is tried first, is hard to find."""
    wanted, said = recipe(prune=AUTO), list[str]()
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said, stop_at="trial 1, taylor (knapsack)"))
    (file,) = (tmp_path / "run").glob("prune.snapshots/*/trials.json")
    trials = json.loads(file.read_text())
    one = trials["done"][0]
    trials["done"] = [{**one, "arm": list(arm), "failure": "the loss is nan"} for arm in ARMS]
    file.write_text(json.dumps(trials))
    with pytest.raises(TrainingDiverged, match="every trial of round 1 diverged"):
        edgeprune.run(wanted, tmp_path / "run", resume=True)
    trials["done"][1] = {**one, "arm": list(ARMS[1]), "validation": 0.1}
    file.write_text(json.dumps(trials))
    said.clear()
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", resume=True, progress=Hearer(said, stop_at="chosen by trial"))
    assert said[-1] == f"chosen by trial: {ARMS[1]}"
    assert not any(text.startswith("trial") for text in said)  # with nobody left to be told from, it trains no more


def test_auto_without_validation_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there are none"):
        edgeprune.run(recipe(prune=AUTO, data={"validation_images": 0}), tmp_path / "run")
