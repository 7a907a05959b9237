"""Pruning while the model trains, and what is told before anything is measured or trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from facts import refused
from small_jobs import FACTORY, Hearer, Listener, recipe

import edgeprune
from edgeprune.errors import DataError, ModelError, TargetError
from edgeprune.pipeline import change_recipe, do_stage, is_finished, prepare_run
from edgeprune.progress import Silent
from edgeprune.runs import open_run
from edgeprune.stages.context import Context

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


def test_a_teacher_of_the_recipes_own_teaches_in_turns_too(tmp_path: Path) -> None:
    turns = {key: value for key, value in TURNS.items() if key not in ("method", "allocator", "regrow")}
    losses = []
    for name, tune in {"alone": {}, "taught": {"teacher": FACTORY, "teacher_weight": 1.0}}.items():
        wanted = recipe(prune={"target": "2kparams", **turns}, tune=tune)
        context = Context(prepare_run(wanted, tmp_path / name, resume=False), Silent(), trust=True)
        for stage in ("load", "probe", "prune"):
            do_stage(context, stage)
        history = json.loads((context.run.folder / "prune" / "history.json").read_text())
        losses.append([epoch["loss"] for epoch in history])
    assert losses[0] != losses[1]


def test_netadapt_trains_its_proposals_on_other_images_than_it_judges_by(tmp_path: Path) -> None:
    asked = {"target": "3kparams", "allocator": "netadapt", "granularity": 4, "minimum_width": 4}
    with refused(DataError, "prune.judging_images"):
        edgeprune.run(recipe(prune={**asked, "judging_images": 5000}), tmp_path / "few", progress=Silent())
    outcome = edgeprune.run(recipe(prune=asked), tmp_path / "run", progress=Silent())
    assert sum(p.numel() for p in edgeprune.load(outcome.folder).module.parameters()) <= 3000


def test_a_target_out_of_reach_is_told_before_the_first_turn(tmp_path: Path) -> None:
    said: list[str] = []
    wanted = recipe(prune={"target": "0.1kparams", "epochs": 3, "interval": 1})
    with refused(TargetError) as error:
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said))
    asked, least = (float(share) for share in re.findall(r"(0\.\d+)x", error.value.what))
    assert asked < least
    assert not [text for text in said if text.startswith("turn")]


def test_a_target_that_no_scales_can_reach_is_told_before_the_first_turn(tmp_path: Path) -> None:
    """Of an untrained net all scales are equal: nothing is chosen in the first turn, but what can go is known."""
    said: list[str] = []
    wanted = recipe(prune={"target": "0.9kparams", **TURNS})  # two of 16 units behind the norm leave 960 parameters
    with refused(TargetError, "prune.allocator = 'judged'") as error:
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said))
    asked, least = (float(share) for share in re.findall(r"(0\.\d+)x", error.value.what))
    assert asked < least
    assert 0.18 <= least < 0.19
    assert not [text for text in said if text.startswith("turn")]


@pytest.mark.parametrize("turns", [{}, {key: TURNS[key] for key in ("epochs", "interval", "regrow")}])
def test_scales_that_are_not_there_are_told_before_anything_is_measured(turns: dict[str, Any], tmp_path: Path) -> None:
    listener = Listener()
    model = {"factory": f"{Path(__file__).with_name('two_convolutions.py')}:plain"}
    wanted = recipe(model=model, prune={"method": "reprune", "allocator": "scales", **turns})
    with refused(ModelError, "batch norm", "scales"):
        edgeprune.run(wanted, tmp_path / "run", progress=listener)
    assert listener.stages == ["load"]


def test_where_no_channel_goes_no_scales_are_asked_for(tmp_path: Path) -> None:
    none = recipe(prune={"target": "1x", "allocator": "scales"}, sparse={"zeros": 0.5, "layers": "all"})
    do_stage(Context(prepare_run(none, tmp_path / "run", resume=False), Listener()), "load")


def test_equal_scales_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    listener = Listener()
    with refused(ModelError, "scales", "equal"):
        edgeprune.run(recipe(prune={"allocator": "scales"}), tmp_path / "run", progress=listener)
    assert listener.stages == ["load"]
