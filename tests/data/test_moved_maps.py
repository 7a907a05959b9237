"""Maps that lie on images are shifted, mirrored and flipped with them, pixel for pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import opened, save_images
from torch import Tensor

from edgeprune.data.augment import Stronger, augmented
from edgeprune.errors import DataError, RecipeError
from edgeprune.recipe import Augment

sides = st.integers(8, 40)
seeds = st.integers(0, 10_000)
ways = st.sampled_from(["crop", "crop-flip"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def finer(images: Tensor, times: int) -> Tensor:
    return images.repeat_interleave(times, -2).repeat_interleave(times, -1)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), sides, sides, st.integers(1, 2), ways, seeds)
def test_an_images_own_pixels_as_a_map_move_as_it_does(
    count: int, height: int, width: int, times: int, way: Augment, seed: int
) -> None:
    pixels = torch.randint(0, 256, (count, 3, height, width), generator=seeded(seed), dtype=torch.uint8)
    moved, maps = augmented(pixels, way, seeded(seed), maps=finer(pixels, times))
    alone, nothing = augmented(pixels, way, seeded(seed))
    assert torch.equal(moved, alone)  # a map changes nothing of what is drawn
    assert nothing is None
    assert maps is not None
    assert torch.equal(maps, finer(moved, times))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 6), sides, sides, ways, seeds)
def test_within_a_pixel_a_finer_map_runs_as_its_image_does(
    count: int, height: int, width: int, way: Augment, seed: int
) -> None:
    """Maps and images of places: where the image runs backwards (flipped, or mirrored at a border), so does the map
    within each pixel; nowhere are its rows or columns torn out of the pixel that they lie in."""
    rows, columns = torch.arange(height), torch.arange(width)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).repeat(count, 1, 1, 1).to(torch.uint8)
    halves = torch.stack(torch.meshgrid(torch.arange(2 * height), torch.arange(2 * width), indexing="ij"))
    moved, maps = augmented(places, way, seeded(seed), maps=halves.repeat(count, 1, 1, 1))
    assert maps is not None
    assert torch.equal(maps // 2, finer(moved, 2).long())
    for axis, channel in ((-2, 0), (-1, 1)):
        place, fine = moved[:, channel].long(), maps[:, channel, :, ::2] if channel == 0 else maps[:, channel, ::2]
        within = fine.unflatten(axis, (-1, 2)).diff(dim=axis).squeeze(axis)
        ahead, behind = (place.roll(shift, axis) for shift in (-1, 1))
        inner = slice(1, place.shape[axis] - 1)
        slope = (ahead - behind).movedim(axis, 0)[inner]
        assert set(within.unique().tolist()) <= {-1, 1}
        told = slope.abs() == 2  # both neighbours agree: no border is mirrored just here
        assert torch.equal(within.movedim(axis, 0)[inner][told], slope[told].sign())


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), ways, seeds, st.data())
def test_a_part_of_a_batch_moves_as_in_the_whole(count: int, way: Augment, seed: int, data: st.DataObject) -> None:
    pixels = torch.randint(0, 256, (count, 1, 16, 16), generator=seeded(seed), dtype=torch.uint8)
    maps = torch.randint(0, 9, (count, 32, 32), generator=seeded(seed))
    start = data.draw(st.integers(0, count - 1))
    part = slice(start, data.draw(st.integers(start + 1, count)))
    whole, all_maps = augmented(pixels, way, seeded(seed), maps=maps)
    some, some_maps = augmented(pixels[part], way, seeded(seed), maps=maps[part], of=count, part=part)
    assert all_maps is not None
    assert some_maps is not None
    assert torch.equal(whole[part], some)
    assert torch.equal(all_maps[part], some_maps)


@pytest.mark.parametrize("shape", [(8, 8), (16, 24), (16,)])
def test_maps_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with refused(DataError, "tune.augment"):
        augmented(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "crop", seeded(0), maps=torch.zeros(2, *shape))


def test_an_unmoved_batch_keeps_its_maps() -> None:
    pixels, maps = torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.arange(2)
    assert augmented(pixels, "none", seeded(0), maps=maps) == (pixels, maps)


def test_randaugment_is_refused_with_masks(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for file in save_images(tmp_path / "images", 12):
        np.save(tmp_path / "masks" / f"{file.stem}.npy", np.zeros((16, 16), np.int64))
    train = opened(str(tmp_path), "mask").train
    with refused(RecipeError, "tune.randaugment"):
        next(train.batches(2, seed=0, augment="crop-flip", stronger=Stronger(randaugment="rand-m9")))
