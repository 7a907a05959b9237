"""Where an interrupted training goes on: with the weights that it began with, whatever else their stage wrote."""

from __future__ import annotations

import sys
from pathlib import Path

from edgeprune.progress import Silent
from edgeprune.runs import create_run
from edgeprune.stages.context import Context
from edgeprune.stages.snapshots import snapshots_of

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from small_jobs import recipe


def place(folder: Path, stage: str, before: str, **files: bytes) -> Path:
    """Where a stage's snapshots lie after one that wrote these files."""
    run = create_run(folder, recipe(), {})
    made = run.clear(before)
    for name, content in files.items():
        (made / name.replace("__", ".")).write_bytes(content)
    run.finish(before, settings="s", seconds=1.0, result={})
    return snapshots_of(Context(run, Silent()), stage).relative_to(folder)


def test_they_go_with_the_weights_of_the_stage_before(tmp_path: Path) -> None:
    first = place(tmp_path / "a", "tune", "prune", model__safetensors=b"weights", prune__json=b"took 3 s")
    slower = place(tmp_path / "b", "tune", "prune", model__safetensors=b"weights", prune__json=b"took 4 s", z=b"more")
    others = place(tmp_path / "c", "tune", "prune", model__safetensors=b"other", prune__json=b"took 3 s")
    assert first == slower
    assert first != others


def test_after_a_stage_without_weights_they_go_with_all_its_files(tmp_path: Path) -> None:
    first = place(tmp_path / "a", "prune", "probe", measurement__json=b"1 ms", original__tflite=b"file")
    same = place(tmp_path / "b", "prune", "probe", measurement__json=b"1 ms", original__tflite=b"file")
    others = place(tmp_path / "c", "prune", "probe", measurement__json=b"2 ms", original__tflite=b"file")
    assert first == same
    assert first != others
