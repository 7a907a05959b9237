"""Which output of the model a class is: the model's names where they are known, text order else, never a guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facts import refused
from photos import opened, photos, spec

from edgeprune.data.open import open_data
from edgeprune.errors import DataError, RecipeError
from edgeprune.labels import read_labels
from edgeprune.models.spec import ModelSpec
from edgeprune.models.timm_import import import_timm
from edgeprune.recipe import DataSection

TWELVE = tuple(str(number) for number in range(1, 13))


@pytest.mark.parametrize("scheme", ["", "timm:", "timm:torch/image_folder@"])
def test_text_order_is_every_folders_and_is_told_where_timms_is_another(tmp_path: Path, scheme: str) -> None:
    photos(tmp_path, dict.fromkeys(TWELVE, 4))
    splits, said = opened(f"{scheme}{tmp_path}", 12)
    assert splits.test.classes == tuple(sorted(TWELVE))
    assert "WARNING" in said.text
    assert "1, 10, 11, 12" in said.text
    assert "1, 2, 3, 4" in said.text
    assert "model.labels" in said.text
    assert splits.record is not None
    assert any("WARNING" in line for line in splits.record.told)


@pytest.mark.parametrize("scheme", ["", "timm:"])
def test_the_models_labels_decide_for_every_source(tmp_path: Path, scheme: str) -> None:
    photos(tmp_path, dict.fromkeys(TWELVE, 4))
    splits, said = opened(f"{scheme}{tmp_path}", 12, labels=TWELVE)
    assert splits.test.classes == TWELVE
    assert "WARNING" not in said.text
    assert splits.record is not None
    assert {name.split("/")[1]: one.label for name, one in splits.record.images.items()} == {
        name: number for number, name in enumerate(TWELVE)
    }


def test_capital_letters_are_another_order_for_timm_too(tmp_path: Path) -> None:
    assert "WARNING" in opened(photos(tmp_path / "a", {"Zebra": 6, "ant": 6}), 2)[1].text
    assert "WARNING" not in opened(photos(tmp_path / "b", {"ant": 6, "zebra": 6}), 2)[1].text


def test_a_class_without_a_folder_is_refused_unless_names_are_on_both_sides(tmp_path: Path) -> None:
    photos(tmp_path, {"ant": 9, "bee": 9, "dog": 9})
    for classes in (4, 1000):
        with refused(DataError, classes):
            opened(tmp_path, classes)
    splits, said = opened(tmp_path, 4, labels=("ant", "bee", "cow", "dog"))
    assert set(splits.train.labels) == {0, 1, 3}
    assert "no test image of 1 of 4 classes: cow" in said.text


def test_labels_that_do_not_hold_a_folder_are_refused(tmp_path: Path) -> None:
    photos(tmp_path, {"ant": 9, "bee": 9})
    with pytest.raises(DataError, match="bee"):
        opened(tmp_path, 3, labels=("ant", "wasp", "cow"))


def test_parts_with_other_class_folders(tmp_path: Path) -> None:
    photos(tmp_path / "train", {"ant": 9, "bee": 9, "cow": 9})
    photos(tmp_path / "test", {"ant": 3, "cow": 3}, start=100)
    splits, said = opened(tmp_path, 3)
    assert set(splits.test.labels) == {0, 2}
    assert "no test image of 1 of 3 classes: bee" in said.text
    photos(tmp_path / "test", {"cows": 3}, start=200)
    for classes in (3, 4):
        with pytest.raises(DataError, match="cows"):
            opened(tmp_path, classes)


def test_folders_named_as_imagenets_synsets_are_its_classes(tmp_path: Path) -> None:
    data = import_timm().data
    synsets = data.ImageNetInfo("imagenet-1k").label_names()
    names = (synsets[7], synsets[900], synsets[3])
    photos(tmp_path, dict.fromkeys(names, 8))
    splits, _ = opened(tmp_path, 1000)
    assert set(splits.train.labels) == {3, 7, 900}
    assert splits.test.classes == tuple(synsets)
    other = data.ImageNetInfo("imagenet-22k-ms").label_names()
    timms = spec(21842).model_copy(update={"source": "timm:focalnet_huge_fl3"})
    splits = open_data(DataSection(source=str(tmp_path), calibration_images=4), timms, seed=0)
    assert set(splits.train.labels) == {other.index(name) for name in names}
    photos(tmp_path, {"n99999999": 8}, start=300)
    with refused(DataError, 1000):
        opened(tmp_path, 1000)


def npz(path: Path, labels: list[int], **more: np.ndarray) -> str:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (len(labels), 16, 16, 3), np.uint8)
    np.savez(path, train_images=images, train_labels=np.array(labels), **more)
    return f"npz:{path}"


def test_numbers_are_the_models_outputs_and_what_has_no_image_is_told(tmp_path: Path) -> None:
    source = npz(tmp_path / "d.npz", [0, 1, 3] * 10)
    splits, said = opened(source, 4)
    assert set(splits.train.labels) == {0, 1, 3}
    assert "no test image of 1 of 4 classes: 2" in said.text
    _, said = opened(source, 1000)
    assert "label n is taken for output n" in said.text
    splits, _ = opened(source, 4, labels=("cat", "dog", "hen", "cow"))
    assert splits.test.classes == ("cat", "dog", "hen", "cow")
    assert set(splits.train.labels) == {0, 1, 3}
    with pytest.raises(DataError):
        opened(source, 3)
    with pytest.raises(DataError):
        opened(source, 3, labels=("cat", "dog", "hen"))


def test_a_data_set_that_numbers_its_classes_keeps_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clothes:
        classes = ("T-shirt", "Trouser", "Ankle boot")
        targets = (0, 1, 2) * 10

        def __len__(self) -> int:
            return 30

        def __getitem__(self, number: int) -> tuple[object, int]:
            from photos import picture

            return picture(number + 1000 * self.test), self.targets[number]

        def __init__(self, test: bool) -> None:
            self.test = test

    timm = import_timm()
    monkeypatch.setattr(timm.data, "create_dataset", lambda *_, split, **__: Clothes(split == "validation"))
    splits, said = opened(f"timm:torch/clothes@{tmp_path}", 3)
    assert splits.test.classes == ("T-shirt", "Trouser", "Ankle boot")
    assert "WARNING" not in said.text
    again, _ = opened(f"timm:torch/clothes@{tmp_path}", 3, record=splits.record)
    assert np.array_equal(again.train.indices, splits.train.indices)
    monkeypatch.setattr(Clothes, "targets", (0, 2, 1) * 10)
    with refused(DataError, 40, "--resume"):
        opened(f"timm:torch/clothes@{tmp_path}", 3, record=splits.record)


def test_the_specs_labels_come_from_the_data_where_it_knows_them(tmp_path: Path) -> None:
    known: ModelSpec = spec(2, ("b", "a"))
    photos(tmp_path, {"a": 6, "b": 6})
    splits = open_data(DataSection(source=str(tmp_path), calibration_images=2), known, seed=0)
    assert splits.test.classes == ("b", "a")


def test_a_data_set_that_numbers_the_files_it_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listed:
        classes = (("zebra", "quagga"), ("ant",))

        def __init__(self, split: str) -> None:
            root = photos(tmp_path / split, {"n2": 8, "n1": 8}, start=100 * (split == "validation"))
            self.samples = [(str(path), int(path.parent.name == "n1")) for path in sorted(root.rglob("*.png"))]

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, number: int) -> tuple[object, int]:
            raise AssertionError("files are decoded as all others are")

    monkeypatch.setattr(import_timm().data, "create_dataset", lambda *_, split, **__: Listed(split))
    splits, _ = opened(f"timm:torch/imagenet@{tmp_path}", 2)
    assert splits.test.classes == ("zebra, quagga", "ant")
    assert splits.record is not None
    assert {one.label for name, one in splits.record.images.items() if "/n1/" in name} == {1}
    assert len(splits.test) == 16


@pytest.mark.parametrize(
    ("folders", "labels", "words"),
    [
        (("caf\u0065\u0301", "tea"), ("caf\u00e9", "tea"), "their Unicode form"),
        (("cat ", "dog "), ("cat", "dog"), "spaces"),
        (("Cat", "Dog"), ("cat", "dog"), "capital letters"),
    ],
)
def test_names_that_only_look_the_same_are_told_apart(
    tmp_path: Path, folders: tuple[str, ...], labels: tuple[str, ...], words: str
) -> None:
    photos(tmp_path / "train", dict.fromkeys(folders, 6))
    with pytest.raises(DataError) as caught:
        opened(tmp_path / "train", 2, labels=labels)
    assert f"names differ in {words}" in str(caught.value.hint)
    photos(tmp_path / "test", dict.fromkeys(labels, 3), start=50)
    with pytest.raises(DataError) as caught:
        opened(tmp_path, 2)
    assert f"names differ in {words}" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (b'{"0": "cat", "1": "dog"}', ("JSON",)),
        ("cat\ndog\n".encode("utf-16"), ("UTF-8",)),
        (b"cat\n\ndog\n", ("empty",)),
        (b"[0, 1]", ("text",)),
        (b"cat\ncat\n", (1, 2)),
    ],
)
def test_files_of_labels_that_are_none(tmp_path: Path, content: bytes, facts: tuple[object, ...]) -> None:
    (tmp_path / "labels").write_bytes(content)
    with refused(RecipeError, tmp_path / "labels", *facts):
        read_labels(tmp_path / "labels")
