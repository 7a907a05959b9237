"""What a recipe asks of training reaches it, is checked before the work, and is done by several processes together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from facts import refused
from small_jobs import FACTORY, Hearer, Listener, recipe

import edgeprune
from edgeprune.errors import RecipeError, UsageError
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.stages.context import Context
from edgeprune.stages.stage import STAGES

BEFORE_TUNE = STAGES[: STAGES.index("tune")]
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "edgeprune")


def pruned(folder: Path, **tune: Any) -> Context:
    context = Context(prepare_run(recipe(tune=tune), folder, resume=False), Hearer([]), trust=True)
    for stage in BEFORE_TUNE:
        do_stage(context, stage)
    return context


def together(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *LAUNCHER, *arguments],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_two_processes_do_the_stage_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pruned(tmp_path / "run").run.folder
    done = together("tune", str(run), "--epochs", "2", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert (told["processes"], told["epochs"]) == (2, 2)
    assert not list(run.glob("tune.snapshots"))
    assert edgeprune.load(run, stage="tune").module is not None
    again = together("tune", str(run), "--json")
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads(again.stdout) == told
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refused(UsageError, "`merge`", "torchrun"):
        edgeprune.merge(run)


def test_a_whole_run_under_a_launcher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with refused(UsageError, "WORLD_SIZE", "tune"):
        edgeprune.run(recipe(), tmp_path / "run")


def test_another_teacher_a_tracker_and_an_optimizer_of_a_recipe(tmp_path: Path) -> None:
    context = pruned(
        tmp_path / "run", optimizer="adamw", teacher=FACTORY, tracker="tensorboard", features=0.1, lr=0.001
    )
    do_stage(context, "tune")
    told = context.run.record("tune")
    assert told is not None
    assert told.result["kept"] in (0, 1)
    assert list((context.run.folder / "logs").rglob("events*"))


@pytest.mark.parametrize(
    ("tune", "prune", "facts"),
    [
        ({"optimizer": "adamv"}, {}, ("tune.optimizer", "adam")),
        ({"tracker": "tensorbored"}, {}, ("tune.tracker", "tensorboard")),
        ({"features": 0.5}, {"epochs": 2}, ("tune.features", "prune.epochs")),
        ({"optimizer": "adafactor"}, {"epochs": 2}, ("tune.optimizer", "prune.epochs")),
        ({"teacher": FACTORY, "teacher_checkpoint": "/none.pth"}, {}, ("tune.teacher_checkpoint", "/none.pth")),
    ],
)
def test_what_cannot_be_is_told_before_the_first_stage(
    tmp_path: Path, tune: dict[str, Any], prune: dict[str, Any], facts: tuple[str, ...]
) -> None:
    listener = Listener()
    with refused(RecipeError, *facts):
        edgeprune.run(recipe(tune=tune, prune=prune), tmp_path / "run", progress=listener)
    assert listener.stages == []
