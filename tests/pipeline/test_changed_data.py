"""Data that change between two commands are told, and what depends on them is done again; never half and half."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import refused
from PIL import Image
from small_jobs import Hearer, recipe

import edgeprune
from edgeprune.data.record import RECORD, read_record
from edgeprune.errors import DataError, RunError
from edgeprune.pipeline import data_now, do_stage, is_finished, is_made, prepare_run, require_earlier
from edgeprune.progress import Silent
from edgeprune.recipe import Recipe
from edgeprune.runs import Run
from edgeprune.stages.context import Context
from edgeprune.stages.snapshots import snapshots_of

NAMES = [str(number) for number in range(10)]


def digits(root: Path) -> Path:
    for name in NAMES:
        (root / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng(10 * int(name) + number).integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def asked(source: Path | str, **data: Any) -> Recipe:
    return recipe(data={"source": str(source), "validation_images": 6, "calibration_images": 6, **data})


def loaded(given: Recipe, folder: Path) -> tuple[Run, list[str], Context]:
    """A run with its load stage done, or done again where it has to be; and what was told."""
    said: list[str] = []
    run = prepare_run(given, folder, resume=True)
    context = Context(run, Hearer(said))
    do_stage(context, "load")
    return run, said, context


def stage_of(run: Run) -> dict[str, str]:
    record = read_record(run.folder / "load" / RECORD)
    return {name: one.split for name, one in record.images.items()}


def remove(root: Path) -> None:
    (root / "3" / "2.png").unlink()


def add(root: Path) -> None:
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(root / "3" / "new.png")


def change(root: Path) -> None:
    file = root / "3" / "2.png"
    before = file.stat()
    data = bytearray(file.read_bytes())
    image = Image.fromarray(np.full((16, 16), 99, np.uint8))
    image.save(file)
    file.write_bytes(file.read_bytes().ljust(len(data), b"\0"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def relabel(root: Path) -> None:
    (root / "3" / "2.png").rename(root / "4" / "x.png")


@pytest.mark.parametrize(
    ("edit", "word"), [(remove, "removed"), (add, "added"), (change, "changed"), (relabel, "moved or renamed")]
)
def test_a_folder_that_changed_is_told_and_everything_is_done_again(tmp_path: Path, edit: Any, word: str) -> None:
    root = digits(tmp_path / "photos")
    run, said, context = loaded(asked(root), tmp_path / "run")
    snapshots, before = snapshots_of(context, "tune"), stage_of(run)
    assert is_finished(run, "load")
    edit(root)
    assert f"1 {word}: train/" in data_now(run).changed
    assert not is_finished(run, "load")
    assert is_made(run, "load")
    with pytest.raises(RunError, match=word):
        require_earlier(run, "tune")
    for name in ("tune", "merge", "verify"):
        with pytest.raises(RunError, match=word):
            getattr(edgeprune, name)(run.folder)
    assert edgeprune.load(run.folder, stage="load").spec.num_classes == 10
    assert stage_of(run) == before
    again, said, context = loaded(asked(root), run.folder)
    assert any(word in line for line in said)
    assert is_finished(again, "load")
    assert snapshots_of(context, "tune") != snapshots  # what was trained on other images is not gone on with
    left = {name: split for name, split in stage_of(again).items() if before.get(name, split) != split}
    assert len(left) <= 4  # the others stay what they were


def test_files_that_were_only_touched_or_copied_back_are_the_same(tmp_path: Path) -> None:
    root = digits(tmp_path / "photos")
    run, _, _ = loaded(asked(root), tmp_path / "run")
    shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(root)
    assert is_finished(run, "load")  # taken away: what was done stays
    with pytest.raises(DataError):
        _ = Context(run, Silent()).splits
    root.mkdir()
    assert is_finished(run, "load")  # as where a disk is not mounted
    root.rmdir()
    shutil.copytree(tmp_path / "copy", root)
    assert is_finished(run, "load")
    splits = Context(run, Silent()).splits
    assert len(splits.test) == 12


def test_a_folder_that_holds_something_else_now_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    root = digits(tmp_path / "photos")
    run, _, _ = loaded(asked(root), tmp_path / "run")
    for file in (root / "5").iterdir():
        file.unlink()
    with pytest.raises(DataError):
        loaded(asked(root), tmp_path / "run")
    assert is_made(run, "load")


def test_an_npz_file_and_a_part_of_its_own_that_changed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {"train_images": random.integers(0, 256, (60, 16, 16), np.uint8), "train_labels": np.arange(60) % 10}
    np.savez(tmp_path / "d.npz", **arrays)
    test = digits(tmp_path / "test")
    given = asked(f"npz:{tmp_path / 'd.npz'}", test=str(test))
    run, _, _ = loaded(given, tmp_path / "run")
    assert is_finished(run, "load")
    np.savez(tmp_path / "d.npz", **arrays | {"train_labels": (np.arange(60) + 1) % 10})
    assert "1 changed: train/d.npz" in data_now(run).changed
    loaded(given, tmp_path / "run")
    remove(test)
    assert "1 removed: test/3/2.png" in data_now(run).changed


def test_a_run_goes_on_with_the_splits_that_are_recorded(tmp_path: Path) -> None:
    root = digits(tmp_path / "photos")
    run, _, context = loaded(asked(root), tmp_path / "run")
    one, two = context.splits, Context(prepare_run(asked(root), tmp_path / "run", resume=True), Silent()).splits
    for part in ("train", "validation", "calibration", "test"):
        assert np.array_equal(getattr(one, part).indices, getattr(two, part).indices)
        assert np.array_equal(getattr(one, part).labels, getattr(two, part).labels)
    record = run.record("load")
    assert record is not None
    assert record.result["data"]["images"]["test"] == 12
    assert any("no test images are named" in line for line in record.result["data"]["told"])


def test_a_run_of_before_data_were_recorded_is_done_again(tmp_path: Path) -> None:
    root = digits(tmp_path / "photos")
    run, _, _ = loaded(asked(root), tmp_path / "run")
    (run.folder / "load" / RECORD).unlink()
    stage = run.folder / "load" / "stage.json"
    tree = json.loads(stage.read_text())
    tree["files"] = [file for file in tree["files"] if file["path"] != RECORD]
    tree["settings"] = tree["settings"].partition("-")[0]
    stage.write_text(json.dumps(tree))
    assert is_made(run, "load")
    assert not is_finished(run, "load")
    with refused(RunError, run.folder, "--resume"):
        require_earlier(run, "prune")
    again, _, _ = loaded(asked(root), tmp_path / "run")
    assert is_finished(again, "load")


def test_a_record_that_is_damaged_is_a_run_error(tmp_path: Path) -> None:
    run, _, _ = loaded(asked(digits(tmp_path / "photos")), tmp_path / "run")
    file = run.folder / "load" / RECORD
    for text in ("", "{}", "[1, 2]\n", "[1, [], false, []]\n[3]\n", "[" * 100_000, "\0"):
        file.write_text(text)
        with pytest.raises(RunError):
            data_now(run)
