"""No image is both trained and tested on, whatever it is called and however it is stored."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from facts import refused
from photos import PARTS, contents, opened, photos, picture, share_nothing
from PIL import Image

from edgeprune.errors import DataError

CLASSES = {"cat": 12, "dog": 12}


def divided(root: Path) -> Path:
    photos(root / "train", CLASSES)
    photos(root / "test", {"cat": 6, "dog": 6}, start=100)
    return root


def test_a_test_folder_that_is_the_training_folder_is_refused(tmp_path: Path) -> None:
    train = photos(tmp_path / "train", CLASSES)
    for number, make in enumerate((Path.symlink_to, lambda there, real: shutil.copytree(real, there))):
        root = tmp_path / f"root{number}"
        root.mkdir()
        (root / "train").symlink_to(train)
        make(root / "test", train)
        for scheme in ("", "timm:"):
            with pytest.raises(DataError):
                opened(f"{scheme}{root}", 2)
        with pytest.raises(DataError):
            opened(train, 2, test=str(root / "test"))
        with pytest.raises(DataError):
            opened(train, 2, calibration=str(root / "test"))


def test_a_test_folder_within_the_training_folder_is_refused(tmp_path: Path) -> None:
    photos(tmp_path, CLASSES)
    photos(tmp_path / "cat" / "sub", {"a": 3, "b": 3}, start=50)
    with pytest.raises(DataError):
        opened(tmp_path, 2, test=str(tmp_path / "cat" / "sub"))


def other_names(root: Path) -> None:
    for number, file in enumerate(sorted((root / "train").rglob("*.png"))):
        there = root / "test" / file.parent.name / f"x{number}.bmp"
        there.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(there)


def hard_links(root: Path) -> None:
    for number, file in enumerate(sorted((root / "train").rglob("*.png"))):
        there = root / "test" / file.parent.name / f"x{number}.png"
        there.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, there)


@pytest.mark.parametrize("copy", [other_names, hard_links])
def test_copies_by_other_names_and_formats_are_found(tmp_path: Path, copy: object) -> None:
    photos(tmp_path / "train", CLASSES)
    copy(tmp_path)  # type: ignore[operator]
    with refused(DataError, 24):
        opened(tmp_path, 2)


def test_arrays_that_are_a_folders_images(tmp_path: Path) -> None:
    photos(tmp_path / "test", {"0": 12, "1": 12})
    images = np.stack([np.asarray(picture(number)) for number in range(24)])
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=np.repeat([0, 1], 12))
    with refused(DataError, 24):
        opened(tmp_path, 2, train=f"npz:{tmp_path / 'd.npz'}", test="test")


def test_a_few_copies_are_left_out_of_training_and_told(tmp_path: Path) -> None:
    root = divided(tmp_path)
    for number in (0, 1, 12):
        shutil.copy(root / "train" / ("cat" if number < 12 else "dog") / f"{number}.png", root / "test" / "dog")
    splits, said = opened(root, 2)
    assert len(splits.test) == 15
    assert sum(len(getattr(splits, part)) for part in PARTS) == 15 + 24 - 3
    assert share_nothing(splits)
    assert "left out of train: 3 images" in said.text
    assert splits.record is not None
    assert splits.record.counts()["left out"] == 3
    again, _ = opened(root, 2, record=splits.record)
    for part in PARTS:
        assert contents(getattr(again, part)) == contents(getattr(splits, part))
        assert np.array_equal(getattr(again, part).labels, getattr(splits, part).labels)


def test_copies_in_calibration_images_of_their_own(tmp_path: Path) -> None:
    root = divided(tmp_path / "root")
    calibration = photos(tmp_path / "calibration", {"cat": 4, "dog": 4}, start=300)
    shutil.copy(root / "test" / "cat" / "100.png", calibration / "cat")
    shutil.copy(root / "train" / "cat" / "1.png", calibration / "cat")
    splits, said = opened(root, 2, calibration=str(calibration), calibration_images=100)
    assert share_nothing(splits)
    assert (len(splits.test), len(splits.calibration)) == (12, 9)
    assert "left out of calibration: 1 images that the test" in said.text
    assert "left out of train: 1 images that the calibration" in said.text


@pytest.mark.parametrize("seed", range(4))
def test_copies_in_an_undivided_folder_go_to_one_split(tmp_path: Path, seed: int) -> None:
    photos(tmp_path, CLASSES)
    for number in range(12):
        for copy in range(number % 3):
            shutil.copy(tmp_path / "cat" / f"{number}.png", tmp_path / "cat" / f"copy{number}-{copy}.png")
    splits, said = opened(tmp_path, 2, seed=seed)
    assert share_nothing(splits)
    assert sum(len(getattr(splits, part)) for part in PARTS) == 36
    assert "12 images are copies of others" in said.text


def test_one_image_of_two_classes_is_told(tmp_path: Path) -> None:
    photos(tmp_path, CLASSES)
    shutil.copy(tmp_path / "cat" / "3.png", tmp_path / "dog" / "too.png")
    splits, said = opened(tmp_path, 2)
    assert share_nothing(splits)
    assert "WARNING: equal images of different classes" in said.text
    assert "cat/3.png" in said.text


def test_splits_are_by_content_one_image_less_changes_few_others(tmp_path: Path) -> None:
    photos(tmp_path, {"cat": 60, "dog": 60})
    before = set(contents(opened(tmp_path, 2)[0].test))
    (tmp_path / "cat" / "7.png").unlink()
    (tmp_path / "dog" / "70.png").rename(tmp_path / "dog" / "a.png")
    picture(999).save(tmp_path / "dog" / "new.png")
    after = set(contents(opened(tmp_path, 2)[0].test))
    assert len(before & after) >= 22


def test_a_data_set_of_arrays_is_divided_without_copies(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)
    images[20:25] = images[:5]
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=np.arange(40) % 2)
    splits, said = opened(f"npz:{tmp_path / 'd.npz'}", 2)
    assert share_nothing(splits)
    assert "5 images are copies" in said.text


def test_too_few_images_are_refused_at_load_with_what_is_needed(tmp_path: Path) -> None:
    photos(tmp_path / "two", {"cat": 1, "dog": 1})
    photos(tmp_path / "few", {"cat": 2, "dog": 1})
    for name in ("two", "few"):
        with refused(DataError, "needs"):
            opened(tmp_path / name, 2)
    splits, said = opened(photos(tmp_path / "one_each", {f"c{number:02}": 1 for number in range(20)}), 20)
    assert min(len(getattr(splits, part)) for part in PARTS) > 0
    assert "no train image of" in said.text
    splits, _ = opened(photos(tmp_path / "seven", {"cat": 4, "dog": 3}), 2, validation_images=500)
    assert len(splits.calibration) == 1
