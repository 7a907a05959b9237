"""The children of a run: one for each exporter, as long as the run, none of another's, none left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from facts import refused
from torch import nn

from edgeprune.artifacts import toolkits as toolkits_module
from edgeprune.artifacts.jobs import ConvertJob, Output
from edgeprune.artifacts.program import save_program
from edgeprune.artifacts.toolkits import Toolkits, toolkits
from edgeprune.errors import ConversionError
from edgeprune.models.spec import Model, ModelSpec, Preprocessing

pytestmark = pytest.mark.usefixtures("strange_exporters")


def model() -> Model:
    spec = ModelSpec(
        source="tests:tiny", input_size=(3, 8, 8), num_classes=4, preprocessing=Preprocessing(mean=(0.5,), std=(0.5,))
    )
    return Model(spec, nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval())


@pytest.fixture
def job(tmp_path: Path) -> Callable[[str], ConvertJob]:
    save_program(model(), tmp_path / "program.pt2")
    outputs = (Output(precision="fp32", file=tmp_path / "fp32.bin"),)
    return lambda name: ConvertJob(exporter=name, program=tmp_path / "program.pt2", outputs=outputs)


def children() -> set[int]:
    """The conversion children of this process that live."""
    found = psutil.Process().children()
    return {
        p.pid for p in found if p.status() != psutil.STATUS_ZOMBIE and "edgeprune.artifacts.child_main" in p.cmdline()
    }


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(300):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail("30 s were not enough")


def test_one_child_serves_all_who_ask_and_ends_with_the_run(job: Callable[[str], ConvertJob]) -> None:
    with Toolkits() as ours:
        ours.do(job("chatty"))
        first = children()
        with toolkits() as same:
            same.do(job("chatty"))
        assert children() == first
        ours.do(job("littering"))
        assert len(children()) == 2
        ours.end()
        assert children() == set()
        ours.do(job("chatty"))
    assert children() == set()


def test_runs_do_not_share_them(job: Callable[[str], ConvertJob]) -> None:
    with Toolkits() as ours:
        ours.do(job("chatty"))
        before = children()
        with Toolkits() as others:
            others.do(job("chatty"))
            assert len(children() - before) == 1
        assert children() == before


def test_after_a_crash_the_next_job_gets_a_new_one(job: Callable[[str], ConvertJob]) -> None:
    with Toolkits() as ours:
        ours.do(job("chatty"))
        (first,) = children()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in children())
        ours.do(job("chatty"))
        for name, words in (("hungry", "ran out of memory"), ("aborting", "SIGABRT"), ("hungry", "ran out of memory")):
            with pytest.raises(ConversionError, match=words):
                ours.do(job(name))
        ours.do(job("chatty"))
        assert len(children()) == 1


def test_what_fails_after_other_jobs_is_tried_in_a_new_one(job: Callable[[str], ConvertJob]) -> None:
    with Toolkits() as ours:
        for _ in range(3):
            ours.do(job("forgetful"))


def test_of_an_earlier_job_nothing_is_said_or_left(tmp_path: Path, job: Callable[[str], ConvertJob]) -> None:
    with Toolkits() as ours:
        ours.do(job("littering"))
        ours.do(job("littering"))
        (tmp_path / "fail").touch()
        with ours.child("littering") as child:
            assert child.served == 2
            with refused(ConversionError, "told to fail") as caught:
                list(child.run(job("littering")))
    assert str(caught.value).count("here: []") == 1
    assert "litter'" not in str(caught.value)


def test_a_child_that_has_nothing_to_do_ends_and_comes_again(
    job: Callable[[str], ConvertJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolkits_module, "IDLE_S", 0.2)
    with Toolkits() as ours:
        ours.do(job("chatty"))
        wait_until(lambda: not children())
        ours.do(job("chatty"))


def test_one_that_is_left_in_the_middle_of_a_job_is_not_used_again(job: Callable[[str], ConvertJob]) -> None:
    with Toolkits() as ours:
        with ours.child("chatty") as child:
            next(child.run(job("chatty")))
        assert children() == set()
        ours.do(job("chatty"))


def test_none_outlives_a_killed_run() -> None:
    code = """
import os, signal, time
from edgeprune.artifacts.toolkits import Toolkits
with Toolkits() as ours:
    ours.start("sleeping")
    with ours.child("sleeping") as child:
        print(child._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert parent.returncode == -signal.SIGKILL
    pid = int(parent.stdout)
    wait_until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
