"""A choice takes its time: an interrupted one goes on, and the device is free while the host chooses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facts import refused
from small_jobs import Hearer, Listener, recipe

import edgeprune
from edgeprune.devices.discovery import open_device
from edgeprune.errors import DeviceError, TargetError
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.recipe import Recipe, Target
from edgeprune.search.recount import real_cost
from edgeprune.stages.context import Context

CHOOSING = "choosing what goes"


class Watcher(Listener):
    """Stops at a word, when it was told so often; asks at each step of a choice whether the device is free."""

    def __init__(self, *, stop_at: str = "", times: int = 1, ask_device: bool = False) -> None:
        super().__init__()
        self.word, self.times, self.ask_device = stop_at, times, ask_device
        self.free: list[bool] = []

    def say(self, text: str) -> None:
        self.heard(text)

    def update(self, text: str, done: float, total: float) -> None:
        if self.ask_device and text.startswith(CHOOSING):
            self.free.append(is_free())
        self.heard(text)

    def heard(self, text: str) -> None:
        if self.word and text.startswith(self.word):
            self.times -= 1
            if not self.times:
                raise KeyboardInterrupt


def is_free() -> bool:
    try:
        with open_device("local").lease():
            return True
    except DeviceError:
        return False


def pruned(settings: Recipe, folder: Path, listener: Listener) -> bytes:
    context = Context(prepare_run(settings, folder, resume=True), listener)
    for stage in ("load", "probe", "prune"):
        do_stage(context, stage)
    return context.file("prune", "plan.json").read_bytes()


def judged(folder: Path) -> list[str]:
    """What was judged by now, one key each, in this order."""
    lines = [line for file in folder.glob("prune.snapshots/*/judged-*.jsonl") for line in file.read_text().splitlines()]
    return [json.loads(line)[0] for line in lines]


def test_an_interrupted_choice_goes_on_where_it_was(tmp_path: Path) -> None:
    settings, folder = recipe(prune={"target": "2kparams", "branches": True}), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        pruned(settings, folder, Watcher(stop_at=CHOOSING, times=2))
    before = judged(folder)
    (file,) = folder.glob("prune.snapshots/*/judged-*.jsonl")
    with file.open("a") as half:
        half.write('["a line that a kill ')
    with pytest.raises(KeyboardInterrupt):
        pruned(settings, folder, Watcher(stop_at="what binds"))
    after = judged(folder)
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) > len(before)
    assert pruned(settings, folder, Listener()) == pruned(settings, tmp_path / "whole", Listener())
    assert not (folder / "prune.snapshots").exists()


def test_in_turns_what_was_judged_of_another_state_of_the_model_does_not_count(tmp_path: Path) -> None:
    settings, folder = recipe(prune={"target": "2kparams", "epochs": 2, "interval": 1}), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        pruned(settings, folder, Watcher(stop_at="turn 2"))
    assert len(list(folder.glob("prune.snapshots/*/judged-*.jsonl"))) == 2
    assert len(set(keys := judged(folder))) < len(keys)  # the whole model, at least, was judged in both
    assert pruned(settings, folder, Listener()) == pruned(settings, tmp_path / "whole", Listener())


def test_another_training_asks_nothing_anew(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        pruned(recipe(), folder, Watcher(stop_at="what binds"))
    before = judged(folder)
    with pytest.raises(KeyboardInterrupt):
        pruned(recipe(tune={"epochs": 3}), folder, Watcher(stop_at="what binds"))
    assert judged(folder) == before


def test_the_device_is_free_while_the_host_chooses(tmp_path: Path) -> None:
    watcher = Watcher(ask_device=True)
    pruned(recipe(prune={"target": "0.8x", "tolerance": 0.2}), tmp_path / "run", watcher)
    assert watcher.free
    assert all(watcher.free)


def test_a_model_that_has_more_than_was_asked_is_chosen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a tenth of each real figure had not been counted on paper."""
    monkeypatch.setattr("edgeprune.stages.prune.real_cost", lambda *what: 1.1 * real_cost(*what))
    said: list[str] = []
    pruned(recipe(), tmp_path / "run", Hearer(said))
    model = edgeprune.load(tmp_path / "run", stage="prune", trust=True)
    assert any("choosing again" in words for words in said)
    assert 1.1 * real_cost(model.module, model.example_input(), Target.parse("3kparams")) <= 3000


def test_a_model_that_never_comes_below_what_was_asked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeprune.stages.prune.real_cost", lambda *what: 4000 + real_cost(*what))
    with refused(TargetError, "3 kparams"):
        pruned(recipe(), tmp_path / "run", Listener())
    assert not (tmp_path / "run" / "prune" / "stage.json").exists()
