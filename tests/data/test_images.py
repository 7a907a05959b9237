from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeprune.data.augment import augmented
from edgeprune.data.images import Geometry, array_images, file_images
from edgeprune.errors import DataError
from edgeprune.models.timm_import import import_timm


def _picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    channels = {"RGB": 3, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels if channels == 3 else pixels[..., 0])


@given(
    width=st.integers(8, 90),
    height=st.integers(8, 90),
    side=st.integers(8, 48),
    crop=st.sampled_from([1.0, 0.95, 0.9, 0.875]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
@settings(max_examples=40, deadline=None)
def test_pixels_are_those_of_timms_evaluation_transform(
    width: int, height: int, side: int, crop: float, interpolation: str
) -> None:
    image = _picture(width, height)
    transform = import_timm().data.create_transform(
        (3, side, side), interpolation=interpolation, crop_pct=crop, mean=(0, 0, 0), std=(1, 1, 1)
    )
    expected = (transform(image) * 255).round().numpy().astype(np.uint8)
    got = Geometry.of((3, side, side), interpolation=interpolation, crop_pct=crop).apply(image)
    assert np.array_equal(got, expected)


@given(width=st.integers(3, 60), height=st.integers(3, 60), h=st.integers(4, 40), w=st.integers(4, 40))
@settings(max_examples=40, deadline=None)
def test_any_picture_becomes_any_input_size(width: int, height: int, h: int, w: int) -> None:
    geometry = Geometry.of((1, h, w), interpolation="bilinear", crop_pct=0.9)
    assert geometry.apply(_picture(width, height)).shape == (1, h, w)


def test_resize_sets_the_shorter_side() -> None:
    image = _picture(100, 50)
    geometry = Geometry.of((3, 32, 32), interpolation="bilinear", crop_pct=1.0, resize=40)
    expected = np.asarray(image.resize((80, 40), Image.Resampling.BILINEAR))[4:36, 24:56]
    assert np.array_equal(geometry.apply(image), expected.transpose(2, 0, 1))
    with refused(DataError, 31, "32x32"):
        Geometry.of((3, 32, 32), interpolation="bilinear", crop_pct=1.0, resize=31)


def test_what_images_cannot_give_is_refused() -> None:
    with refused(DataError, 4):
        Geometry.of((4, 8, 8), interpolation="bilinear", crop_pct=1.0)
    with refused(DataError, "'random'"):
        Geometry.of((3, 8, 8), interpolation="random", crop_pct=1.0)


def test_an_array_of_the_right_size_is_taken_as_it_is() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    images = array_images(array, Geometry.of((3, 8, 8), interpolation="bicubic", crop_pct=1.0), memory_limit=1 << 30)
    assert np.array_equal(images.pixels(np.array([3, 1])), array[[3, 1]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(4, 6, 6), (4, 6, 6, 1), (4, 6, 6, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_become_what_the_model_eats(shape: tuple[int, ...], channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images = array_images(
        array, Geometry.of((channels, 8, 8), interpolation="bilinear", crop_pct=1.0), memory_limit=1 << 30
    )
    assert images.pixels(np.arange(4)).shape == (4, channels, 8, 8)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_kept_and_streamed_pixels_are_the_same(tmp_path: Path, limit: int) -> None:
    geometry = Geometry.of((3, 16, 16), interpolation="bicubic", crop_pct=0.9)
    paths = []
    for i in range(9):
        paths.append(tmp_path / f"{i}.png")
        _picture(20 + i, 30, seed=i).save(paths[-1])
    images = file_images(paths, geometry, memory_limit=limit)
    assert images.streams == (limit == 0)
    wanted = np.array([7, 2, 2, 5])
    for _ in range(2):
        got = images.pixels(wanted)
        assert np.array_equal(got, np.stack([geometry.apply(_picture(20 + int(i), 30, seed=int(i))) for i in wanted]))
    assert images.pixels(np.array([], np.int64)).shape == (0, 3, 16, 16)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    geometry = Geometry.of((3, 16, 16), interpolation="bicubic", crop_pct=1.0)
    _picture(64, 64).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    images = file_images([tmp_path / "good.png", tmp_path / "half.png"], geometry, memory_limit=1 << 30)
    with refused(DataError, "half.png"):
        images.pixels(np.array([0, 1]))


def test_augmentation_shifts_mirrors_and_flips() -> None:
    side = 16
    ramp = torch.arange(side, dtype=torch.uint8).expand(256, side, side)
    out, _ = augmented(torch.stack([ramp, ramp.transpose(1, 2)], 1), "crop-flip", torch.Generator().manual_seed(3))
    assert out.shape == (256, 2, side, side)
    assert out.dtype == torch.uint8

    def mirrored(line: list[int]) -> tuple[int, bool]:
        shift = line[side // 2] - side // 2
        places = [abs(p + shift) if p + shift < side else 2 * (side - 1) - p - shift for p in range(side)]
        return shift, line == places

    seen = set()
    for columns, rows in zip(out[:, 0, 5].tolist(), out[:, 1, :, 5].tolist(), strict=True):
        flipped = columns[3] > columns[-4]
        across, is_shift = mirrored(columns[::-1] if flipped else columns)
        down, is_shift_too = mirrored(rows)
        assert is_shift
        assert is_shift_too
        seen.add((flipped, across, down))
    assert {flip for flip, _, _ in seen} == {True, False}
    assert {x for _, x, _ in seen} == {y for _, _, y in seen} == {-2, -1, 0, 1, 2}


def test_no_flip_unless_asked_and_none_is_the_input() -> None:
    ramp = torch.arange(16, dtype=torch.uint8).expand(64, 1, 16, 16)
    cropped, _ = augmented(ramp, "crop", torch.Generator().manual_seed(0))
    assert (cropped[:, 0, 0, 4] < cropped[:, 0, 0, 11]).all()
    assert augmented(ramp, "none", torch.Generator())[0] is ramp
