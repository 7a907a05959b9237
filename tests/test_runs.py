"""The run folder: finished means whole, one process at a time, nothing half-written."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from facts import refused
from pydantic import ValidationError

from edgeprune.errors import EdgePruneError, RunError
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import Run, create_run, lock, open_run, settings_hash, write_atomic


@pytest.fixture
def recipe() -> Recipe:
    return parse_recipe({"model": {"name": "resnet18"}, "data": {"source": "digits"}})


@pytest.fixture
def run(tmp_path: Path, recipe: Recipe) -> Run:
    return create_run(tmp_path / "run", recipe, {"python": "3"})


def finish(run: Run, stage: str = "load") -> None:
    folder = run.clear(stage)  # type: ignore[arg-type]
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_bytes(b"12345")
    run.finish(stage, settings="s", seconds=1.0, result={"a": 1})  # type: ignore[arg-type]


def test_finished_stage_is_read_back(run: Run) -> None:
    assert run.record("load") is None
    finish(run)
    record = open_run(run.folder).record("load")
    assert record is not None
    assert record.result == {"a": 1}
    assert [f.path for f in record.files] == ["sub/weights"]


def test_clearing_a_stage_forgets_the_later_ones(run: Run) -> None:
    for stage in ("load", "prune", "export"):
        finish(run, stage)
    run.clear("prune", "tune", "export")
    assert run.record("load") is not None
    assert run.record("prune") is None
    assert run.record("export") is None


@pytest.mark.parametrize("name", ["sawing", "prune"])
def test_the_record_of_another_stage_is_told(run: Run, name: str) -> None:
    finish(run)
    path = run.folder / "load" / "stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stage": name}))
    with pytest.raises(RunError) as caught:
        run.record("load")
    assert caught.value.where == str(path)
    assert name in caught.value.what


@pytest.mark.parametrize("damage", ["change", "shorten", "remove", "record", "name"])
def test_corrupt_folder_is_told(run: Run, damage: str) -> None:
    finish(run)
    weights = run.folder / "load" / "sub" / "weights"
    if damage == "change":
        weights.write_bytes(b"54321")
    elif damage == "shorten":
        weights.write_bytes(b"123")
    elif damage == "remove":
        weights.unlink()
    elif damage == "name":  # that no file can have
        record = run.folder / "load" / "stage.json"
        record.write_text(record.read_text().replace("sub/weights", "9" * 5000))
    else:
        (run.folder / "load" / "stage.json").write_text("{")
    with pytest.raises(RunError) as caught:
        run.record("load")
    assert str(run.folder / "load") in str(caught.value)
    assert "delete" in str(caught.value.hint)


def bytes_read() -> int:
    """By this process so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_file_is_hashed_once_a_process_and_again_when_it_was_touched(run: Run) -> None:
    folder, size = run.clear("load"), 1 << 22
    weights = folder / "weights"
    weights.write_bytes(bytes(size))
    os.utime(weights, (1e9, 1e9))  # one that was written just now may change once more without its times showing it
    run.finish("load", settings="s", seconds=1.0, result={})
    before = bytes_read()
    for _ in range(3):
        assert open_run(run.folder).record("load") is not None
    assert bytes_read() - before < size
    weights.write_bytes(bytes(size - 1) + b"1")
    os.utime(weights, (1e9, 1e9))  # as a copy that keeps times
    with pytest.raises(RunError) as caught:
        run.record("load")
    assert caught.value.where == str(weights)


def test_folder_with_something_else_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "holiday.jpg").touch()
    with refused(RunError, tmp_path, "--out"):
        create_run(tmp_path, recipe, {})
    with refused(RunError, tmp_path, "run.json"):
        open_run(tmp_path)


def test_a_run_is_not_overwritten(run: Run, recipe: Recipe) -> None:
    with refused(RunError, run.folder, "--resume"):
        create_run(run.folder, recipe, {})


def test_unreadable_head(run: Run) -> None:
    head = json.loads((run.folder / "run.json").read_text())
    head["recipe"]["prune"]["surprise"] = 1
    (run.folder / "run.json").write_text(json.dumps(head))
    with refused(RunError, run.folder / "run.json", because=ValidationError):
        open_run(run.folder)


def _hold(folder: Path, held: multiprocessing.Queue[bool]) -> None:
    with lock(folder):
        held.put(True)
        time.sleep(60)


def test_two_runs_on_one_folder_and_a_killed_holder(run: Run) -> None:
    held: multiprocessing.Queue[bool] = multiprocessing.Queue()
    holder = multiprocessing.Process(target=_hold, args=(run.folder, held))
    holder.start()
    assert held.get(timeout=30)
    with refused(RunError, run.folder), lock(run.folder):
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with lock(run.folder):  # the lock went with its holder
        pass


def test_full_disk_is_told_and_leaves_no_part_file(tmp_path: Path) -> None:
    """A real limit of the operating system on the file's size stands for the full disk."""
    script = f"""
import resource, signal
from pathlib import Path
from typing import Any
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from edgeprune.errors import EdgePruneError
from edgeprune.runs import write_atomic
try:
    write_atomic(Path({str(tmp_path)!r}) / "big", b"x" * 5000)
except EdgePruneError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert os.strerror(errno.EFBIG) in done.stdout
    assert str(tmp_path / "big") in done.stdout
    assert "--resume" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(EdgePruneError, tmp_path / "file" / "x", os.strerror(errno.EEXIST), code=3):
        write_atomic(tmp_path / "file" / "x", b"")


def test_settings_hash_depends_on_its_sections_only(recipe: Recipe) -> None:
    other = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"epochs": 99})})
    assert settings_hash(recipe, ("model",)) == settings_hash(other, ("model",))
    assert settings_hash(recipe, ("model", "tune")) != settings_hash(other, ("model", "tune"))


def test_a_key_that_was_added_leaves_runs_from_before_finished() -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}}
    made, zeros = parse_recipe(tree), parse_recipe({**tree, "sparse": {"zeros": 0, "layers": "all"}})
    assert settings_hash(made, ("sparse",)) == "a7b1b5ac7ee9e210"  # of the day before `sparse.layers`
    assert settings_hash(zeros, ("sparse",)) != settings_hash(made, ("sparse",))


def test_waiting_for_a_device_is_no_setting_of_a_stage() -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}}
    patient = parse_recipe({**tree, "device": {"wait_minutes": 5}})
    assert settings_hash(patient, ("device",)) == settings_hash(parse_recipe(tree), ("device",))
    assert settings_hash(patient, ("device",)) != settings_hash(
        parse_recipe({**tree, "device": {"threads": 2}}), ("device",)
    )


@pytest.mark.parametrize(
    ("prune", "before"),
    [
        ({}, "7f96f229cfcf1c95"),
        ({"scoring_batches": 2}, "19228ca2d63a3205"),
        ({"taylor": {"scoring_batches": 2}}, "19228ca2d63a3205"),
        ({"method": "auto", "auto_minutes": 5}, "5fffcdde020c447f"),
        ({"method": "auto", "auto": {"minutes": 5}}, "5fffcdde020c447f"),
        (
            {"method": "reprune", "allocator": "scales", "epochs": 4, "interval": 1, "regrow": 0.3},
            "3e4982f8bf4bb169",
        ),
    ],
)
def test_a_run_from_before_methods_had_tables_goes_on(prune: dict[str, Any], before: str) -> None:
    """The hashes are those that version 0.1 wrote before: what it finished is finished."""
    recipe = parse_recipe({"model": {"name": "resnet18"}, "data": {"source": "digits"}, "prune": prune})
    sections = ("model", "data", "device", "prune", "sparse", "tune")
    assert settings_hash(recipe, sections) == before
    assert settings_hash(Recipe.model_validate_json(recipe.model_dump_json()), sections) == before


def test_settings_of_another_method_are_other_settings() -> None:
    def hash_of(**prune: Any) -> str:
        tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}, "prune": prune}
        return settings_hash(parse_recipe(tree), ("prune",))

    assert (
        len({hash_of(), hash_of(method="halp"), hash_of(halp={"scoring_batches": 2}), hash_of(method="netadapt")}) == 4
    )
