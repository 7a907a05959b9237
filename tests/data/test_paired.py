"""Images with masks, maps or switches: in two folders, or in the arrays of an .npz file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_data import SIDE, Said, key, opened, pairs, pixels, save_images, spec

from edgeprune.data.folders import NoData
from edgeprune.data.images import Geometry
from edgeprune.data.open import changed_since
from edgeprune.data.targets import cut_mask
from edgeprune.errors import DataError
from edgeprune.recipe import DataSection, TargetKind

Array = np.ndarray[Any, np.dtype[Any]]


def mask(number: int, height: int = SIDE, width: int = SIDE, most: int = 3) -> Array:
    return np.random.default_rng(1000 + number).integers(0, most, (height, width), np.uint8)


def masked(root: Path, count: int = 12, *, start: int = 0, height: int = SIDE, width: int = SIDE) -> list[Path]:
    """ROOT/images and ROOT/masks, .png and .npy in turns; gives the masks."""
    (root / "masks").mkdir(parents=True)
    files = []
    for number, image in enumerate(save_images(root / "images", count, start=start, height=height, width=width), start):
        file = root / "masks" / f"{image.stem}{'.npy' if number % 2 else '.png'}"
        values = mask(number, height, width)
        np.save(file, values) if number % 2 else Image.fromarray(values).save(file)
        files.append(file)
    return files


def check_masks(root: Path, count: int = 12) -> None:
    found = pairs(opened(str(root), "mask"))
    assert found.keys() == {key(pixels(number)) for number in range(count)}
    for number in range(count):
        got = found[key(pixels(number))]
        assert got.dtype == torch.int64
        assert np.array_equal(got.numpy(), mask(number))


def test_masks_of_a_folder_are_those_of_their_images(tmp_path: Path) -> None:
    masked(tmp_path)
    check_masks(tmp_path)


@pytest.mark.parametrize(("images", "masks"), [("JPEGImages", "SegmentationClass"), ("img", "annotations")])
def test_folders_are_found_by_their_usual_names(tmp_path: Path, images: str, masks: str) -> None:
    masked(tmp_path)
    (tmp_path / "images").rename(tmp_path / images)
    (tmp_path / "masks").rename(tmp_path / masks)
    check_masks(tmp_path)


def test_a_palettes_places_are_the_numbers(tmp_path: Path) -> None:
    for number, file in enumerate(masked(tmp_path)):
        if file.suffix == ".png":
            image = Image.fromarray(mask(number), mode="P")
            image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
            image.save(file)
    check_masks(tmp_path)


def test_splits_of_their_own_are_kept_apart(tmp_path: Path) -> None:
    masked(tmp_path / "train", 12)
    masked(tmp_path / "val2017", 4, start=50)
    masked(tmp_path / "test", 5, start=90)
    said = Said()
    splits = opened(str(tmp_path), "mask", progress=said)
    assert pairs([splits.test]).keys() == {key(pixels(number)) for number in range(90, 95)}
    assert pairs([splits.train, splits.validation, splits.calibration]).keys() == {key(pixels(i)) for i in range(12)}
    assert "val2017" in said.text
    named = opened(str(tmp_path / "train"), "mask", test=str(tmp_path / "val2017"))
    assert pairs([named.test]).keys() == {key(pixels(number)) for number in range(50, 54)}
    inside = opened(str(tmp_path), "mask", train="train", test="val2017")
    assert pairs([inside.test]).keys() == pairs([named.test]).keys()


def test_the_record_knows_every_file_and_gives_the_same_splits(tmp_path: Path) -> None:
    files = masked(tmp_path)
    splits = opened(str(tmp_path), "mask")
    assert splits.record is not None
    assert len(splits.record.files) == 24
    again = opened(str(tmp_path), "mask", record=splits.record)
    assert pairs([again.test]).keys() == pairs([splits.test]).keys()
    section = DataSection(source=str(tmp_path))
    assert changed_since(section, splits.record) == ""
    np.save(files[1], mask(5))
    assert "masks/001.npy" in changed_since(section, splits.record)


@settings(max_examples=25, deadline=None)
@given(st.integers(16, 60), st.integers(16, 60), st.integers(8, 16), st.sampled_from([1.0, 0.875]), st.integers(0, 99))
def test_a_mask_is_cut_as_its_image_is(height: int, width: int, side: int, crop_pct: float, seed: int) -> None:
    """An image whose only colours are black and white, resized to the nearest pixel, is its own mask."""
    geometry = Geometry.of((1, side, side), interpolation="nearest", crop_pct=crop_pct)
    image = np.random.default_rng(seed).integers(0, 2, (height, width), np.uint8)
    assert np.array_equal(cut_mask(image.astype(np.int64), geometry), geometry.apply(Image.fromarray(image))[0])
    wide = image.astype(np.int64) * 40_000 + 7
    assert np.array_equal(cut_mask(wide, geometry), cut_mask(image.astype(np.int64), geometry) * 40_000 + 7)


def test_masks_are_resized_with_their_images(tmp_path: Path) -> None:
    masked(tmp_path, height=40, width=30)
    test = opened(str(tmp_path), "mask", spec(crop_pct=0.8)).test
    images, masks = next(test.batches(2))
    assert images.shape[-2:] == masks.shape[-2:] == (SIDE, SIDE)
    assert masks.max() < 3


def test_masks_move_with_their_images_in_training(tmp_path: Path) -> None:
    """Each image is its own mask, in its first channel."""
    (tmp_path / "masks").mkdir()
    for file in save_images(tmp_path / "images", 14):
        with Image.open(file) as image:
            image.getchannel(0).save(tmp_path / "masks" / file.name)
    train = opened(str(tmp_path), "mask").train
    still = torch.cat([images for images, _ in train.batches(4, seed=3)])
    images, masks = (torch.cat(parts) for parts in zip(*train.batches(4, seed=3, augment="crop-flip"), strict=True))
    assert not torch.equal(images, still)
    assert torch.equal((images[:, 0] * 255).round().long(), masks)


def test_a_batch_of_one(tmp_path: Path) -> None:
    masked(tmp_path)
    test = opened(str(tmp_path), "mask").test
    sizes = [(len(images), len(masks)) for images, masks in test.batches(1, seed=0, augment="crop-flip")]
    assert sizes == [(1, 1)] * len(test)


# Maps of numbers


@pytest.mark.parametrize("times", [1, 2])
def test_maps_of_numbers_come_as_they_are(tmp_path: Path, times: int) -> None:
    (tmp_path / "targets").mkdir()
    for number, file in enumerate(save_images(tmp_path / "images", 12)):
        values = np.random.default_rng(number).normal(size=(1, times * SIDE, times * SIDE))
        np.save(tmp_path / "targets" / f"{file.stem}.npy", values)
    found = pairs(opened(str(tmp_path), "values"))
    expected = np.random.default_rng(4).normal(size=(1, times * SIDE, times * SIDE)).astype(np.float32)
    assert np.array_equal(found[key(pixels(4))].numpy(), expected)


def test_images_as_targets_are_from_0_to_1(tmp_path: Path) -> None:
    save_images(tmp_path / "lr", 12)
    save_images(tmp_path / "hr", 12, height=2 * SIDE, width=2 * SIDE)
    found = pairs(opened(str(tmp_path), "values"))
    expected = pixels(3, 2 * SIDE, 2 * SIDE).transpose(2, 0, 1) / np.float32(255)
    assert np.allclose(found[key(pixels(3))].numpy(), expected)
    for file in (tmp_path / "hr").iterdir():
        deep = np.full((SIDE, SIDE), 65535 * int(file.stem) // 12, np.uint16)
        Image.fromarray(deep).save(file)
    found = pairs(opened(str(tmp_path), "values"))
    assert found[key(pixels(3))].shape == (1, SIDE, SIDE)
    assert torch.allclose(found[key(pixels(3))], torch.tensor(0.25), atol=1e-4)


def test_images_that_would_be_resized_under_their_maps_are_refused(tmp_path: Path) -> None:
    save_images(tmp_path / "images", 12, height=SIDE + 4)
    save_images(tmp_path / "targets", 12, height=SIDE + 4)
    with refused(DataError, f"{SIDE}x{SIDE + 4}", "data.crop_pct"):
        opened(str(tmp_path), "values")


def test_maps_of_several_shapes_and_infinite_ones_are_refused(tmp_path: Path) -> None:
    save_images(tmp_path / "images", 12)
    files = save_images(tmp_path / "targets", 12)
    Image.fromarray(pixels(5, SIDE, 2 * SIDE)).save(files[5])
    with refused(DataError, str(files[5]), "000.png"):
        opened(str(tmp_path), "values")
    for file in files:
        file.unlink()
        np.save(file.with_suffix(".npy"), np.full(3, np.inf if file == files[7] else np.nan))
    with refused(DataError, str(files[7].with_suffix(".npy"))):
        opened(str(tmp_path), "values")


# Arrays


def arrays(path: Path, **changed: Any) -> str:
    given = {
        "train_images": np.stack([pixels(number) for number in range(12)]),
        "train_masks": np.stack([mask(number) for number in range(12)]),
        "train_targets": np.arange(24, dtype=np.float64).reshape(12, 2),
        "train_labels": np.eye(3, dtype=np.int64)[np.arange(12) % 3],
        "test_images": np.stack([pixels(number) for number in range(20, 24)]),
        "test_masks": np.stack([mask(number) for number in range(20, 24)]),
        "test_targets": np.arange(8.0).reshape(4, 2),
        "test_labels": np.ones((4, 3), bool),
        **changed,
    }
    np.savez(path, **{name: value for name, value in given.items() if value is not None})
    return f"npz:{path}"


def test_arrays(tmp_path: Path) -> None:
    source = arrays(tmp_path / "all.npz")
    masks = pairs(opened(source, "mask"))
    assert np.array_equal(masks[key(pixels(3))].numpy(), mask(3))
    assert np.array_equal(masks[key(pixels(21))].numpy(), mask(21))
    values = pairs(opened(source, "values"))
    assert values[key(pixels(3))].tolist() == [6.0, 7.0]
    assert values[key(pixels(3))].dtype == torch.float32
    several = opened(source, "classes")
    assert pairs(several)[key(pixels(4))].tolist() == [0, 1, 0]
    assert pairs([several.test]).keys() == {key(pixels(number)) for number in range(20, 24)}


@pytest.mark.parametrize(
    ("kind", "changed", "facts"),
    [
        ("mask", {"train_masks": None}, ["train_masks"]),
        ("mask", {"train_images": None, "test_images": None}, ["train_images"]),
        ("mask", {"train_images": np.zeros((12, 3, 16, 16), np.uint8)}, ["train_images"]),
        ("mask", {"train_masks": np.zeros((11, SIDE, SIDE), np.uint8)}, [12, 11]),
        ("mask", {"train_masks": np.zeros((12, SIDE, 8), np.uint8)}, [f"{SIDE}x{SIDE}"]),
        ("mask", {"train_masks": np.zeros((12, SIDE, SIDE))}, ["float64"]),
        ("mask", {"train_masks": np.full((12, SIDE, SIDE), -1)}, [-1, "task.ignore"]),
        ("mask", {"train_masks": np.full((12, SIDE, SIDE), 70_000)}, [70_000]),
        ("classes", {"train_labels": np.full((12, 3), 2)}, ["train_labels"]),
        ("classes", {"train_labels": np.zeros(12, np.int64)}, ["train_labels"]),
        ("values", {"train_targets": np.full((12, 2), "a")}, ["train_targets"]),
        ("values", {"train_targets": np.full((12, 2), np.inf)}, ["NaN"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, kind: TargetKind, changed: dict[str, Any], facts: list[object]
) -> None:
    source = arrays(tmp_path / "all.npz", **changed)
    with refused(DataError, *facts, str(tmp_path / "all.npz")):
        opened(source, kind)


def test_an_image_map_of_an_array_is_not_resized(tmp_path: Path) -> None:
    source = arrays(tmp_path / "all.npz", train_targets=np.zeros((12, SIDE, SIDE)))
    with refused(DataError, "data.crop_pct"):
        opened(source, "values", spec(side=12))


# What is wrong with files


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    files = masked(tmp_path)
    np.save(files[3], mask(3, SIDE, SIDE + 2))
    with refused(DataError, f"{SIDE + 2}x{SIDE}", f"{SIDE}x{SIDE}", str(files[3])):
        opened(str(tmp_path), "mask")


def test_an_image_without_a_mask_is_refused(tmp_path: Path) -> None:
    masked(tmp_path)[3].unlink()
    with refused(DataError, "003", 1, 12):
        opened(str(tmp_path), "mask")


def test_two_masks_for_one_image_are_refused(tmp_path: Path) -> None:
    masked(tmp_path)[3].with_suffix(".png").write_bytes((tmp_path / "masks" / "004.png").read_bytes())
    with refused(DataError, "003", str(tmp_path / "masks")):
        opened(str(tmp_path), "mask")


def test_a_mask_with_colours_is_refused(tmp_path: Path) -> None:
    files = masked(tmp_path)
    Image.fromarray(pixels(1)).save(files[2])
    with refused(DataError, str(files[2]), ".npy"):
        opened(str(tmp_path), "mask")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"<html>"])
def test_a_damaged_mask_is_refused(tmp_path: Path, content: bytes) -> None:
    files = masked(tmp_path)
    for file in files[2:4]:  # a .png and a .npy
        before = file.read_bytes()
        file.write_bytes(content)
        with refused(DataError, str(file)):
            opened(str(tmp_path), "mask")
        file.write_bytes(before)


def test_folders_that_hold_no_pairs_are_refused(tmp_path: Path) -> None:
    with refused(NoData, str(tmp_path / "nowhere")):
        opened(str(tmp_path / "nowhere"), "mask")
    save_images(tmp_path / "cat", 3)
    with refused(DataError, "cat", "images/", "masks/"):
        opened(str(tmp_path), "mask")
    with refused(DataError, "csv:FILE"):
        opened(str(tmp_path), "classes")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with refused(NoData, str(tmp_path / "images")):
        opened(str(tmp_path), "mask")


@pytest.mark.parametrize("source", ["digits", "timm:torch/cifar10"])
def test_sources_of_classes_alone_are_refused(source: str) -> None:
    with refused(DataError, source.partition(":")[0]):
        opened(source, "mask")


@pytest.mark.parametrize("kept", [True, False])
def test_a_mask_that_changes_or_vanishes_while_it_is_used_is_refused(tmp_path: Path, kept: bool) -> None:
    files = masked(tmp_path)
    splits = opened(str(tmp_path), "mask")
    for file in files:
        if kept:
            np.save(file, mask(9)) if file.suffix == ".npy" else Image.fromarray(mask(99)).save(file)
            os.utime(file, ns=(1, 1))
        else:
            file.unlink()
    with refused(DataError, "masks", "--resume") if kept else refused(DataError, "masks"):
        next(splits.test.batches(2))


def test_an_image_that_vanishes_while_it_is_used_is_refused(tmp_path: Path) -> None:
    masked(tmp_path)
    splits = opened(str(tmp_path), "mask", memory_limit=0)
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with refused(DataError, "images", "--resume"):
        next(splits.test.batches(2))
