"""A disk that is full: the operating system's own limit on the size of a file stands for it."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest
from tiny_job import SHORTLY, Done, Finished, edgeprune, inside, leftovers, stamps, write_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_measuring")]


def cramped(limit: int, *arguments: object) -> Done:
    """The command where no file can grow beyond so many bytes."""
    return edgeprune(
        *arguments, command=SHORTLY, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )


def test_it_is_told_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    recipe, run = write_job(tmp_path), tmp_path / "run"
    done = cramped(20_000, "run", recipe, "--out", run)
    done.refused("cannot write the file: File too large", "load/model.safetensors", "--resume", code=3)
    assert {p.name for p in run.iterdir()} == {"run.json", ".lock"}
    assert leftovers(run) == []


@pytest.mark.parametrize(
    ("stage", "limit"), [("tune", 60_000), ("quantize", 10_000), ("export", 60_000), ("verify", 8_000)]
)
def test_finished_stages_are_kept(finished: Finished, copied: Path, stage: str, limit: int) -> None:
    for name in ("report", "verify", "export", "quantize", "merge", "tune"):
        if name == "export" and stage == "verify":
            break
        shutil.rmtree(copied / name)
        if name == stage:
            break
    before = stamps(copied)
    done = cramped(limit, stage, copied)
    done.refused("file", str(copied), "--resume", code=3)
    assert leftovers(copied) == []
    assert not (copied / stage).exists()
    assert stamps(copied) == before
    if stage != "verify":
        assert inside(stage, copied).code == 0  # with room again
