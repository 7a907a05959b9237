"""`prune.method = "auto"`: what is tried, how long, what is kept, what is picked, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from facts import refused
from small_jobs import Hearer, recipe

import edgeprune
from edgeprune.errors import RecipeError, TrainingDiverged
from edgeprune.methods.arms import ARMS
from edgeprune.methods.trials import length_of, rounds_of
from edgeprune.progress import Silent
from edgeprune.runs import open_run
from edgeprune.search.path import EXCHANGES
from edgeprune.stages.context import Context

ONE_BRANCH = f"{Path(__file__).with_name('one_branch.py')}:net"
AUTO = {"target": "4kparams", "method": "auto", "auto_minutes": 0.05, "granularity": 4, "minimum_width": 2}


def test_auto_tries_only_what_can_do_as_it_is_asked(tmp_path: Path) -> None:
    wanted, said = recipe(model={"factory": ONE_BRANCH}, prune={**AUTO, "target": "0.25kparams", "branches": True}), []
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said, stop_at="chosen by trial"))
    (file,) = (tmp_path / "run").glob("prune.snapshots/*/trials.json")
    left_out = json.loads(file.read_text())["left_out"]
    twins = {name for name, why in left_out.items() if "chooses the same" in why}
    assert set(left_out) - twins == {str(arm) for arm in ARMS if arm.allocator != "judged"}
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
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said, stop_at="trial 1, magnitude (judged)"))
    before = [text for text in said if text.startswith("trial")]
    said.clear()
    outcome = edgeprune.run(wanted, tmp_path / "run", resume=True, progress=Hearer(said))
    after = [text for text in said if text.startswith("trial")]
    assert not set(before[:-1]) & set(after)  # what was tried is not tried again
    trials = json.loads((outcome.folder / "prune" / "trials.json").read_text())
    rounds: dict[int, dict[tuple[str, str], float]] = {}
    for trial in trials["done"]:
        rounds.setdefault(trial["round"], {})[tuple(trial["arm"])] = trial["validation"]
    tried = len(ARMS) - len(trials["left_out"])  # in so small a net some choose the same
    halves = [math.ceil(tried / 2**number) for number in range(rounds_of(tried))]
    assert len(halves) >= 2
    assert [len(scores) for scores in rounds.values()] == halves
    there = len(Context(open_run(outcome.folder), Silent()).splits.train)
    assert {(trial["round"], trial["images"]) for trial in trials["done"]} == {
        (number, length_of(trials["images"] * 2 ** (number - 1), there, wanted.tune.batch_size).trained)
        for number in rounds
    }
    assert "all scales of batch norms are equal" in trials["left_out"]["reprune (scales)"]  # the net was never trained
    for number in range(1, len(rounds)):
        assert min(rounds[number][arm] for arm in rounds[number + 1]) >= max(
            score for arm, score in rounds[number].items() if arm not in rounds[number + 1]
        )
    record = json.loads((outcome.folder / "prune" / "prune.json").read_text())
    best = rounds[len(rounds)][record["method"], record["allocator"]]
    assert best == max(rounds[len(rounds)].values())
    assert (
        f"({record['allocator']}) was chosen: top-1 accuracy {100 * best:.2f} % on the validation images"
        in outcome.page.read_text()
    )


def test_auto_whose_trials_all_diverge_picks_nothing_and_a_single_one_that_did_not(tmp_path: Path) -> None:
    """The trials are written down as diverged: a rate at which all pruned models diverge and the whole one does not,
    which is tried first, is hard to find."""
    wanted, said = recipe(prune=AUTO), list[str]()
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said, stop_at="trial 1, magnitude (judged)"))
    (file,) = (tmp_path / "run").glob("prune.snapshots/*/trials.json")
    trials = json.loads(file.read_text())
    one = trials["done"][0]
    trials["done"] = [{**one, "arm": list(arm), "failure": "the loss is nan"} for arm in ARMS]
    file.write_text(json.dumps(trials))
    with refused(TrainingDiverged, "round 1"):
        edgeprune.run(wanted, tmp_path / "run", resume=True)
    trials["done"][1] = {**one, "arm": list(ARMS[1]), "validation": 0.1}
    file.write_text(json.dumps(trials))
    said.clear()
    with pytest.raises(KeyboardInterrupt):
        edgeprune.run(wanted, tmp_path / "run", resume=True, progress=Hearer(said, stop_at="chosen by trial"))
    assert said[-1] == f"chosen by trial: {ARMS[1]}"
    assert not any(text.startswith("trial") for text in said)  # with nobody left to be told from, it trains no more


def test_auto_without_validation_images_is_refused(tmp_path: Path) -> None:
    with refused(RecipeError, "validation_images", "auto"):
        edgeprune.run(recipe(prune=AUTO, data={"validation_images": 0}), tmp_path / "run")


def test_equal_choices_are_tried_once_and_gates_that_are_not_there_leave_nothing_out(tmp_path: Path) -> None:
    """The branch may go and no channel, so three rankings choose one and the same model, and rules none."""
    said: list[str] = []
    only_the_branch = {**AUTO, "target": "1kparams", "granularity": 16, "minimum_width": 16}
    wanted = recipe(model={"factory": ONE_BRANCH}, prune={**only_the_branch, "squeeze_excitation": True})
    outcome = edgeprune.run(wanted, tmp_path / "run", progress=Hearer(said))
    assert "prune.squeeze_excitation: the model has no such gate that could go" in said
    assert not any("the recipe asks for that" in text for text in said)
    assert "magnitude (judged) chooses the same as taylor (judged): tried once" in said
    trials = json.loads((outcome.folder / "prune" / "trials.json").read_text())
    assert trials["done"] == []
    assert trials["left_out"]["reprune (judged)"] == "it chooses the same as taylor (judged)"
    assert "cannot be reached" in trials["left_out"]["taylor (knapsack)"]
    assert "Of the methods only taylor (judged) was left to choose" in outcome.page.read_text()
    record = open_run(outcome.folder).record("prune")
    assert record is not None
    assert (record.result["method"], record.result["allocator"]) == ("taylor", "judged")
