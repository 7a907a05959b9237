"""Splits by any usual name, and folders that only look like classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import refused
from photos import opened, photos, share_nothing

from edgeprune.data.folders import role_of
from edgeprune.errors import DataError

CLASSES = {"cat": 12, "dog": 12}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("train_set", "test_set"),
        ("training-set", "validation-set"),
        ("trainset", "valset"),
        ("train data", "eval"),
        ("images_train", "images_dev"),
        ("train2017", "val2017"),
        ("TrainImages", "TestImages"),
        ("flowers_train", "flowers_test"),
    ],
)
def test_the_usual_names_are_splits(tmp_path: Path, train: str, test: str) -> None:
    photos(tmp_path / train, CLASSES)
    photos(tmp_path / test, {"cat": 3, "dog": 4}, start=100)
    splits, _ = opened(tmp_path, 2)
    assert splits.test.classes == ("cat", "dog")
    assert len(splits.test) == 7
    assert share_nothing(splits)


@pytest.mark.parametrize("name", ["latest", "contest", "valley", "trainer", "testament", "devil", "invalid", "cat"])
def test_words_that_only_hold_these_names_are_none(name: str) -> None:
    assert role_of(name) is None


@pytest.mark.parametrize("parent", ["images", "dataset"])
def test_splits_one_folder_down(tmp_path: Path, parent: str) -> None:
    photos(tmp_path / parent / "train", CLASSES)
    photos(tmp_path / parent / "val", {"cat": 3, "dog": 3}, start=100)
    (tmp_path / "__MACOSX").mkdir()
    splits, _ = opened(tmp_path, 2)
    assert len(splits.test) == 6


def test_test_images_come_before_validation_images_and_that_is_told(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "val", "test")):
        photos(tmp_path / name, {"cat": 12 - number, "dog": 12}, start=100 * number)
    photos(tmp_path / "spare", {"bird": 2}, start=500)
    splits, said = opened(tmp_path, 2)
    assert len(splits.test) == 22
    assert "not used: val/" in said.text
    assert "not used: spare/" in said.text


@pytest.mark.parametrize(
    "names",
    [
        ("fold1", "fold2"),
        ("Prüfung", "Lernen"),
        ("train", "part2"),
        ("train", "Training"),
        ("train", "test", "test_set"),
        ("train", "test", "other"),
    ],
)
def test_what_looks_like_splits_and_is_not_known_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for number, name in enumerate(names):
        photos(tmp_path / name, {"cat": 4, "dog": 4}, start=100 * number)
    for classes in (2, len(names)):
        with pytest.raises(DataError) as caught:
            opened(tmp_path, classes)
        assert caught.value.where == str(tmp_path)
        assert caught.value.hint


def test_named_in_the_recipe_they_are_what_it_says(tmp_path: Path) -> None:
    photos(tmp_path / "fold1", CLASSES)
    photos(tmp_path / "fold2", {"cat": 3, "dog": 3}, start=100)
    splits, _ = opened(tmp_path, 2, train="fold1", test="fold2")
    assert len(splits.test) == 6
    with pytest.raises(DataError):
        opened(tmp_path, 2, train="fold1", test="../" + tmp_path.name)


def test_splits_within_classes_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog", "hen")):
        photos(tmp_path / name, {"train": 6, "test": 3}, start=100 * number)
    with pytest.raises(DataError):
        opened(tmp_path, 3)


def test_flat_splits_are_no_classes_and_a_class_may_be_called_train(tmp_path: Path) -> None:
    photos(tmp_path / "flat", {"train": 9, "test": 9})
    with pytest.raises(DataError):
        opened(tmp_path / "flat", 2)
    photos(tmp_path / "one", {"Train": 9})
    with pytest.raises(DataError):
        opened(tmp_path / "one", 2)
    photos(tmp_path / "vehicles", {"bus": 9, "car": 9, "train": 9})
    splits, said = opened(tmp_path / "vehicles", 3)
    assert splits.test.classes == ("bus", "car", "train")
    assert "train has the name of a split" in said.text
    photos(tmp_path / "rail", {"car": 9, "train": 9})
    with pytest.raises(DataError):
        opened(tmp_path / "rail", 2)
    assert opened(tmp_path / "rail", 2, labels=("train", "car"))[0].test.classes == ("train", "car")


def test_class_folders_that_hold_alike_folders_are_classes_where_labels_say_so(tmp_path: Path) -> None:
    for number, name in enumerate(("cat", "dog")):
        photos(tmp_path / name, {"indoors": 6, "outdoors": 6}, start=100 * number)
    with pytest.raises(DataError):
        opened(tmp_path, 2)
    splits, _ = opened(tmp_path, 2, labels=("dog", "cat"))
    assert splits.test.classes == ("dog", "cat")


def test_timms_folders_are_split_alike(tmp_path: Path) -> None:
    photos(tmp_path / "Training", CLASSES)
    photos(tmp_path / "Testing", {"cat": 3, "dog": 4}, start=100)
    for name in ("", "@", "folder/x@", "torch/folder@"):
        splits, _ = opened(f"timm:{name}{tmp_path}", 2)
        assert len(splits.test) == 7
        assert share_nothing(splits)


@pytest.mark.parametrize("inner", ["images", "Imgs", "data"])
def test_class_folders_in_a_folder_of_images_in_each_split(tmp_path: Path, inner: str) -> None:
    photos(tmp_path / "train" / inner, CLASSES)
    photos(tmp_path / "test" / inner, {"cat": 3, "dog": 4}, start=100)
    splits, _ = opened(tmp_path, 2)
    assert splits.test.classes == ("cat", "dog")
    assert len(splits.test) == 7
    assert share_nothing(splits)


def test_one_class_of_any_other_name_is_one_class(tmp_path: Path) -> None:
    photos(tmp_path / "animals", CLASSES)
    with refused(DataError, tmp_path, "animals"):
        opened(tmp_path, 2)


def test_a_link_back_is_no_class(tmp_path: Path) -> None:
    photos(tmp_path / "data", CLASSES)
    (tmp_path / "data" / "all").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    splits, _ = opened(tmp_path / "data", 2)
    assert splits.test.classes == ("cat", "dog")


@pytest.mark.parametrize(
    "source",
    ["", "  ", "npz:", "timm:", "timm:@"],
)
def test_no_source_is_not_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(photos(tmp_path, CLASSES))
    with refused(DataError, "source"):
        opened(source, 2)


@pytest.mark.parametrize(("name", "advice"), [("a.npz", "npz:a.npz"), ("a.zip", "unpack")])
def test_a_file_is_no_folder(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with refused(DataError, tmp_path / name, advice):
        opened(tmp_path / name, 2)
