from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeprune.data import sources
from edgeprune.data.folders import NoData
from edgeprune.data.open import open_data
from edgeprune.data.split import Split, Splits, spread
from edgeprune.errors import DataError
from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.progress import Silent
from edgeprune.recipe import DataSection


class Said(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += text + "\n"


def spec(channels: int = 3, side: int = 16, classes: int = 10, labels: tuple[str, ...] = ()) -> ModelSpec:
    preprocessing = Preprocessing(mean=(0.5,) * channels, std=(0.25,) * channels, interpolation="bilinear")
    return ModelSpec(
        source="timm:x",
        input_size=(channels, side, side),
        num_classes=classes,
        preprocessing=preprocessing,
        labels=labels,
    )


def folder(root: Path, counts: dict[str, int], start: int = 0) -> Path:
    """Plain-coloured pictures: the colour says which picture it is."""
    number = start
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (20, 24), (number % 256, number // 256, 7)).save(root / name / f"{i}.png")
            number += 1
    return root


def identities(split: Split) -> set[tuple[int, ...]]:
    """What tells the pictures of `folder` apart."""
    pixels = split.images.pixels(split.indices)
    return {tuple(int(v) for v in image[:, 8, 8]) for image in pixels}


def disjoint(splits: Splits) -> bool:
    parts = [identities(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)]
    return sum(len(p) for p in parts) == len(set().union(*parts))


@pytest.mark.parametrize("channels", [1, 3])
def test_digits(channels: int) -> None:
    section = DataSection(source="digits", validation_images=200, calibration_images=100)
    splits = open_data(section, spec(channels, 32), seed=3)
    sizes = [len(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)]
    assert sum(sizes) == 1797
    assert sizes[1:] == [200, 100, 359]
    pool = np.concatenate([s.indices for s in (splits.train, splits.validation, splits.calibration, splits.test)])
    assert len(set(pool.tolist())) == 1797
    for split in (splits.train, splits.validation, splits.test):
        share = np.bincount(split.labels, minlength=10) / len(split)
        assert np.abs(share - 0.1).max() < 0.03
    images, labels = next(splits.test.batches(16))
    assert images.shape == (16, channels, 32, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert -2.0 <= images.min() < -1.5 < 1.5 < images.max() <= 2.0
    assert splits.test.classes == tuple("0123456789")
    assert not splits.train_is_calibration


def test_digits_with_another_seed_are_split_otherwise_and_the_same_alike() -> None:
    section = DataSection(source="digits")
    one, again, other = (open_data(section, spec(1), seed=s) for s in (0, 0, 1))
    for name in ("train", "validation", "calibration", "test"):
        assert np.array_equal(getattr(one, name).indices, getattr(again, name).indices)
        assert not np.array_equal(getattr(one, name).indices, getattr(other, name).indices)


def test_batches() -> None:
    test = open_data(DataSection(source="digits"), spec(1), seed=0).test
    plain = list(test.batches(100))
    assert [len(x) for x, _ in plain] == [100, 100, 100, 59]
    assert np.array_equal(torch.cat([y for _, y in plain]).numpy(), test.labels)
    shuffled, again, other = (
        torch.cat([x for x, _ in test.batches(100, seed=s, augment="crop-flip")]) for s in (1, 1, 2)
    )
    assert torch.equal(shuffled, again)
    assert not torch.equal(shuffled, other)
    everything = torch.cat([x for x, _ in plain])
    reordered = torch.cat([x for x, _ in test.batches(64, seed=5)])
    assert not torch.equal(everything, reordered)
    assert torch.allclose(everything.double().sum(0), reordered.double().sum(0))


def test_a_value_is_scaled_and_normalised(tmp_path: Path) -> None:
    splits = open_data(DataSection(source=str(folder(tmp_path, {"a": 9, "b": 9}))), spec(classes=2), seed=0)
    images, _ = next(splits.train.batches(1))
    blue = images[0, 2]
    assert torch.equal(blue, torch.full((16, 16), 7.0).div(255).sub(0.5).div(0.25))


def test_take_is_spread_over_the_classes() -> None:
    test = open_data(DataSection(source="digits"), spec(1), seed=0).test
    taken = test.take(50)
    assert len(taken) == 50
    assert np.bincount(taken.labels).tolist() == pytest.approx([5] * 10, abs=1)
    assert set(taken.indices) <= set(test.indices)
    assert np.array_equal(taken.indices, test.take(50).indices)
    assert test.take(10_000) is test
    assert len(test.take(0)) == 0


@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=6), share=st.floats(0.0, 1.0), seed=st.integers(0, 1000)
)
@settings(max_examples=100, deadline=None)
def test_spread_gives_each_class_its_share(counts: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    n = round(share * len(labels))
    chosen = spread(labels, n, seed=seed)
    assert len(set(chosen.tolist())) == len(chosen) == n
    got = np.bincount(labels[chosen], minlength=len(counts))
    assert np.abs(got - np.array(counts) * n / len(labels)).max() <= len(counts)


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"cat": 40, "dog": 60})
    folder(tmp_path / "val", {"cat": 5, "dog": 5}, start=100)
    section = DataSection(source=str(tmp_path), validation_images=10, calibration_images=20)
    splits = open_data(section, spec(classes=2), seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)] == [70, 10, 20, 10]
    assert disjoint(splits)
    assert identities(splits.test) == {(n, 0, 7) for n in range(100, 110)}
    assert splits.test.classes == ("cat", "dog")
    assert np.bincount(splits.validation.labels).tolist() == [4, 6]


def test_a_folder_of_classes_is_divided(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 50, "b": 50})
    (tmp_path / ".hidden").mkdir()
    section = DataSection(source=str(tmp_path), validation_images=10, calibration_images=10)
    splits = open_data(section, spec(classes=2), seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)] == [60, 10, 10, 20]
    assert disjoint(splits)


def test_small_data_is_shared_out(tmp_path: Path) -> None:
    section, said = DataSection(source=str(folder(tmp_path, {"a": 30, "b": 30}))), Said()
    splits = open_data(section, spec(classes=2), seed=0, progress=said)
    assert len(splits.train) >= len(splits.validation) + len(splits.calibration) > 0
    assert disjoint(splits)
    assert "only 48 training images" in said.text


def test_without_training_images_calibration_ones_are_tuned_on(tmp_path: Path) -> None:
    said = Said()
    folder(tmp_path / "calib", {"a": 10, "c": 10})
    folder(tmp_path / "eval", {"a": 4, "b": 4, "c": 4}, start=50)
    section = DataSection(source=str(tmp_path), calibration="calib", test="eval", validation_images=4)
    splits = open_data(section, spec(classes=3), seed=0, progress=said)
    assert splits.train_is_calibration
    assert "no training images" in said.text
    assert "no calibration image of 1 of 3 classes: b" in said.text
    assert [len(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)] == [16, 4, 16, 12]
    assert np.array_equal(splits.train.indices, splits.calibration.indices)
    assert not identities(splits.validation) & identities(splits.train)
    assert set(splits.calibration.labels) == {0, 2}  # "c" is the third class, as in the test images
    assert splits.calibration.classes == ("a", "b", "c")


def test_sources_of_their_own(tmp_path: Path) -> None:
    source = folder(tmp_path / "one", {"a": 30, "b": 30})
    test = folder(tmp_path / "two", {"a": 3, "b": 3}, start=100)
    calibration = folder(tmp_path / "three", {"a": 8, "b": 8}, start=150)
    section = DataSection(
        source=str(source), test=str(test), calibration=str(calibration), validation_images=10, calibration_images=6
    )
    splits = open_data(section, spec(classes=2), seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)] == [50, 10, 6, 6]
    assert disjoint(splits)


def test_an_npz_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 16, 16, 3), np.uint8)
    labels = np.arange(60) % 3
    np.savez(
        tmp_path / "d.npz",
        train_images=images[:50],
        train_labels=labels[:50],
        test_images=images[50:],
        test_labels=labels[50:],
    )
    section = DataSection(source=f"npz:{tmp_path / 'd.npz'}", validation_images=5, calibration_images=10)
    splits = open_data(section, spec(classes=3), seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)] == [35, 5, 10, 10]
    batch, got = next(splits.test.batches(10))
    assert torch.equal(((batch * 0.25 + 0.5) * 255).round(), torch.from_numpy(images[50:]).permute(0, 3, 1, 2).float())
    assert got.tolist() == labels[50:].tolist()


def test_timm_opens_a_data_set(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"a": 20, "b": 20})
    folder(tmp_path / "val", {"a": 3, "b": 3}, start=60)
    section = DataSection(source=f"timm:torch/image_folder@{tmp_path}", validation_images=4, calibration_images=4)
    splits = open_data(section, spec(classes=2), seed=0)
    assert [len(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)] == [32, 4, 4, 6]
    assert disjoint(splits)
    assert splits.test.classes == ("a", "b")
    with refused(DataError, "timm", "torch/nothing"):
        open_data(DataSection(source=f"timm:torch/nothing@{tmp_path}"), spec(), seed=0)


def test_streaming_gives_the_same_batches(tmp_path: Path) -> None:
    section = DataSection(source=str(folder(tmp_path, {"a": 40, "b": 40})))
    kept, streamed = (open_data(section, spec(classes=2), seed=0, memory_limit=m) for m in (1 << 30, 0))
    for settings_ in ({}, {"seed": 4, "augment": "crop-flip"}):
        one, two = (list(s.train.batches(7, **settings_)) for s in (kept, streamed))
        assert len(one) == len(two) > 3
        assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, two, strict=True))


def test_the_models_labels_give_the_order(tmp_path: Path) -> None:
    section = DataSection(source=str(folder(tmp_path, {"ant": 20, "bee": 20})))
    splits = open_data(section, spec(classes=3, labels=("bee", "cow", "ant")), seed=0)
    assert splits.test.classes == ("bee", "cow", "ant")
    assert set(splits.test.labels) == {0, 2}


def test_fewer_class_folders_than_the_model_has_outputs_are_refused(tmp_path: Path) -> None:
    with refused(DataError, 2, 5):
        open_data(DataSection(source=str(folder(tmp_path, {"a": 20, "b": 20}))), spec(classes=5), seed=0)


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    section = DataSection(source=str(folder(tmp_path, {"a": 3, "b": 3, "c": 3})))
    with refused(DataError, 3, 2):
        open_data(section, spec(classes=2), seed=0)


def test_class_names_that_differ(tmp_path: Path) -> None:
    folder(tmp_path / "train", {"a": 3, "b": 3, "c": 3})
    folder(tmp_path / "test", {"a": 3, "z": 3}, start=10)
    with refused(DataError, "test", "z"):
        open_data(DataSection(source=str(tmp_path)), spec(classes=3), seed=0)


def test_no_empty_or_one_class_folder(tmp_path: Path) -> None:
    with refused(NoData, tmp_path / "nowhere"):
        open_data(DataSection(source=str(tmp_path / "nowhere")), spec(), seed=0)
    (tmp_path / "empty").mkdir()
    with refused(NoData, tmp_path / "empty"):
        open_data(DataSection(source=str(tmp_path / "empty")), spec(), seed=0)
    folder(tmp_path / "one", {"only": 3})
    with refused(DataError, tmp_path / "one", "only"):
        open_data(DataSection(source=str(tmp_path / "one")), spec(), seed=0)
    folder(tmp_path / "gap", {"a": 3, "b": 0})
    with refused(DataError, tmp_path / "gap" / "b"):
        open_data(DataSection(source=str(tmp_path / "gap")), spec(), seed=0)


@pytest.mark.parametrize(
    ("arrays", "facts"),
    [
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, ("`train_images`", "images")),
        (
            {"train_images": np.zeros((3, 8, 8, 3), np.float32), "train_labels": np.arange(3)},
            ("float32", "(3, 8, 8, 3)"),
        ),
        ({"train_images": np.zeros((3, 3, 8, 8), np.uint8), "train_labels": np.arange(3)}, ("uint8", "(3, 3, 8, 8)")),
        ({"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": np.arange(4)}, ("train_labels", 3)),
        ({"train_images": np.zeros((3, 8, 8), np.uint8)}, ("train_labels", 3)),
        (
            {"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": np.array([0, -1, 2])},
            ("train_labels", "negative"),
        ),
        ({"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": np.zeros(3, int)}, ("one",)),
        ({"train_images": np.zeros((3, 8, 8), np.uint8), "train_labels": np.array([0, 10, 2])}, (11, 10)),
    ],
)
def test_npz_files_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], facts: tuple[object, ...]) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with refused(DataError, *facts):
        open_data(DataSection(source=f"npz:{tmp_path / 'd.npz'}"), spec(), seed=0)


def test_npz_files_that_are_none(tmp_path: Path) -> None:
    with refused(NoData, tmp_path / "no.npz"):
        open_data(DataSection(source=f"npz:{tmp_path / 'no.npz'}"), spec(), seed=0)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 but not a zip")
    with refused(DataError, tmp_path / "bad.npz"):
        open_data(DataSection(source=f"npz:{tmp_path / 'bad.npz'}"), spec(), seed=0)
    np.savez(tmp_path / "pickled.npz", train_images=np.array([{}, 1], object))
    with refused(DataError, tmp_path / "pickled.npz", "plain arrays"):
        open_data(DataSection(source=f"npz:{tmp_path / 'pickled.npz'}"), spec(), seed=0)


@pytest.mark.parametrize("part", ["test", "calibration"])
def test_one_undivided_folder_named_twice_is_refused(tmp_path: Path, part: str) -> None:
    root = folder(tmp_path / "photos", {"a": 20, "b": 20})
    section = DataSection(source=str(root), validation_images=4, calibration_images=4, **{part: str(root)})
    with refused(DataError, part, root):
        open_data(section, spec(classes=2), seed=0)


def test_a_folder_that_timm_does_not_divide_is_divided_by_us(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", {"a": 20, "b": 20})
    section = DataSection(source=f"timm:folder/photos@{root}", validation_images=4, calibration_images=4)
    splits = open_data(section, spec(classes=2), seed=0)
    assert disjoint(splits)
    assert sum(len(s) for s in (splits.train, splits.validation, splits.calibration, splits.test)) == 40


def test_the_embedded_digits_are_scikit_learns() -> None:
    """Which has them from the same place; it was asked for them before they were embedded."""
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    with np.load(Path(sources.__file__).with_name("digits.npz"), allow_pickle=False) as ours:
        assert np.array_equal(ours["images"], theirs.images)
        assert np.array_equal(ours["labels"], theirs.target)
