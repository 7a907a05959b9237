"""A run that is killed, again and again, each time a stage further (at last by Ctrl-C), and goes on every time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tiny_job import SHORTLY, Done, edgeprune, inside, leftovers, stamps, write_job

from edgeprune.stages.stage import STAGES

pytestmark = pytest.mark.slow

EPOCHS = 16
MARK = "EDGEPRUNE_TEST_MARK"
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Kill:
    """What one life of the run left behind."""

    stage: str  # the stage it was killed in
    code: int
    log: str
    before: dict[str, tuple[int, bytes]]  # the finished stages when it began
    after: dict[str, tuple[int, bytes]]  # and when it was killed
    children: int  # processes it had started, at work when it was killed
    orphans: list[str]  # those of them that outlived it
    second: Done | None = None  # another run on the same folder meanwhile


@dataclass(frozen=True)
class Survived:
    run: Path
    recipe: Path
    kills: dict[str, Kill]
    snapshot: dict[str, object]  # the head of the epoch snapshot that tuning was killed after
    last: Done
    before_last: dict[str, tuple[int, bytes]]


def family(mark: str) -> list[psutil.Process]:
    """The living processes that a marked run has started, wherever they hang in the process tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(moment: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not moment():
        assert process.poll() is None, f"it ended before it could be killed:\n{log.read_text()}"
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.003)


class Killer:
    """Starts the run and ends it with SIGKILL at a given moment."""

    def __init__(self, recipe: Path, run: Path) -> None:
        self.recipe, self.run = recipe, run
        self.log = recipe.with_name("stderr.txt")

    def kill(
        self,
        stage: str,
        moment: Callable[[], bool],
        *,
        by: signal.Signals = signal.SIGKILL,
        children: bool = True,
        meanwhile: bool = False,
    ) -> Kill:
        """End it in a stage, at a moment (with `children`: as soon as it has some)."""
        mark, before = uuid.uuid4().hex, stamps(self.run)
        command = [*SHORTLY, "run", str(self.recipe), "--out", str(self.run), "--resume"]
        with self.log.open("wb") as log:
            process = subprocess.Popen(command, env=os.environ | {MARK: mark}, stdout=log, stderr=log)
            try:
                until(moment, process, self.log)
                if children:
                    until(lambda: bool(psutil.Process(process.pid).children()), process, self.log)
                second = inside("run", self.recipe, "--out", self.run, "--resume") if meanwhile else None
                count = len(psutil.Process(process.pid).children(recursive=True))
                process.send_signal(by)
                code = process.wait(timeout=300)
            finally:
                process.kill()
                process.wait()
        after = stamps(self.run)
        _, alive = psutil.wait_procs(family(mark), timeout=60)
        return Kill(
            stage, code, self.log.read_text(), before, after, count, [" ".join(p.cmdline()) for p in alive], second
        )

    def says(self, text: str) -> Callable[[], bool]:
        return lambda: text in self.log.read_text()


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> Survived:
    folder = tmp_path_factory.mktemp("killed")
    recipe = write_job(folder, tune={"epochs": EPOCHS}, quantize={"enabled": False}, export={"formats": ["tflite"]})
    run = folder / "run"
    killer = Killer(recipe, run)
    kills = [
        killer.kill("load", (run / "load").exists, children=False),
        killer.kill("probe", (run / "probe" / "original.tflite").exists, meanwhile=True),
        killer.kill("prune", killer.says("prune\n")),
        killer.kill("tune", lambda: any(run.glob("tune.snapshots/*/epoch-0002.json")), children=False),
    ]
    newest = max(run.glob("tune.snapshots/*/epoch-*.json"))
    snapshot = json.loads(newest.read_text())
    kills += [
        killer.kill("export", lambda: any(run.glob("export/.part-*/*"))),
        killer.kill("verify", killer.says("measuring latency"), by=signal.SIGINT),
    ]
    before = stamps(run)
    last = edgeprune("run", recipe, "--out", run, "--resume", "--json", command=SHORTLY)
    return Survived(run, recipe, {k.stage: k for k in kills}, snapshot, last, before)


def test_it_finishes(survived: Survived) -> None:
    assert survived.last.code == 0, survived.last.err
    assert survived.last.json["outcome"] == "pass"
    assert set(stamps(survived.run)) == set(STAGES)


@pytest.mark.parametrize("stage", ["load", "probe", "prune", "tune", "export", "verify"])
def test_what_was_finished_is_kept_and_what_was_not_is_no_stage(survived: Survived, stage: str) -> None:
    kill = survived.kills[stage]
    assert {name: kill.after[name] for name in kill.before} == kill.before  # not done again
    assert set(kill.after) == set(STAGES[: STAGES.index(stage)])  # type: ignore[arg-type]
    assert {name: stamps(survived.run)[name] for name in kill.after} == kill.after


@pytest.mark.parametrize("stage", ["load", "probe", "prune", "tune", "export", "verify"])
def test_no_process_outlives_the_run(survived: Survived, stage: str) -> None:
    kill = survived.kills[stage]
    assert kill.children > 0 or stage in ("load", "tune")  # a stage that works with processes had them
    assert kill.orphans == []


def test_ctrl_c_is_told_without_a_traceback(survived: Survived) -> None:
    assert {kill.code for stage, kill in survived.kills.items() if stage != "verify"} == {-signal.SIGKILL}
    interrupted = survived.kills["verify"]
    assert interrupted.code == 130
    assert "stopped; finished stages are kept, go on with --resume" in interrupted.log
    assert "Traceback" not in interrupted.log


def test_tuning_goes_on_after_the_last_whole_epoch(survived: Survived) -> None:
    done = survived.snapshot["history"]
    assert isinstance(done, list)
    assert 2 <= len(done) < EPOCHS
    history = json.loads((survived.run / "tune" / "history.json").read_text())
    assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1))
    assert history[: len(done)] == done  # to the microsecond that each epoch took: these were not done again


def test_interrupted_tuning_ends_at_the_same_weights(survived: Survived, tmp_path: Path) -> None:
    run = Path(shutil.copytree(survived.run, tmp_path / "run"))
    shutil.rmtree(run / "tune")
    done = edgeprune("tune", run, "--json")
    assert done.json["epochs"] == EPOCHS
    weights = (run / "tune" / "model.safetensors").read_bytes()
    assert weights == (survived.run / "tune" / "model.safetensors").read_bytes()


def test_nothing_half_written_is_left(survived: Survived) -> None:
    assert leftovers(survived.run) == []
    assert {p.name for p in survived.run.iterdir()} == {*STAGES, "run.json", ".lock"}
    for stage in STAGES:
        record = json.loads((survived.run / stage / "stage.json").read_text())
        there = {str(p.relative_to(survived.run / stage)) for p in (survived.run / stage).rglob("*") if p.is_file()}
        assert there == {"stage.json", *(file["path"] for file in record["files"])}


def test_two_runs_on_one_folder(survived: Survived) -> None:
    second = survived.kills["probe"].second
    assert second is not None
    second.refused("another run is working on this folder", str(survived.run), "choose another --out")


def test_a_finished_run_does_nothing_when_resumed(survived: Survived) -> None:
    before = stamps(survived.run)
    done = inside("run", survived.recipe, "--out", survived.run, "--resume", "--json")
    assert done.code == 0
    assert done.json == survived.last.json
    assert stamps(survived.run) == before
    assert not [line for line in done.err.splitlines() if line in STAGES]
