"""coco:FILE.json: classes and masks from annotated objects, and every part of the file that is wrong."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from small_data import SIDE, key, opened, pairs, pixels, save_images, spec

from edgeprune.data.coco import find_coco
from edgeprune.data.folders import NoData
from edgeprune.data.open import changed_since
from edgeprune.data.painted import IGNORED, Picture, Shape, painted
from edgeprune.errors import DataError, ToolkitMissing
from edgeprune.recipe import DataSection

COUNT = 12
# Ids in another order than their names and places: the order of the ids counts.
CATEGORIES = [{"id": 40, "name": "ant"}, {"id": 7, "name": "fox"}, {"id": 9, "name": "bee"}]
FOX, BEE, ANT = 7, 9, 40


def square(left: int, top: int, side: int) -> list[list[float]]:
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def tree(objects: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """A file of the images of `save_images`, the first with id 100, and these objects of each."""
    images = [
        {"id": 100 + number, "file_name": f"{number:03d}.png", "width": SIDE, "height": SIDE} for number in range(COUNT)
    ]
    annotations = [
        {"id": 1000 + 10 * number + place, "image_id": 100 + number, "iscrowd": 0, **one}
        for number, some in objects.items()
        for place, one in enumerate(some)
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def one_each() -> dict[str, Any]:
    kinds = (FOX, BEE, ANT)
    return tree({n: [{"category_id": kinds[n % 3], "segmentation": square(2, 3, 4)}] for n in range(COUNT)})


def saved(root: Path, content: Any) -> str:
    save_images(root / "photos", COUNT)
    (root / "a.json").write_text(json.dumps(content))
    return f"coco:{root / 'a.json'}@{root / 'photos'}"


def test_one_class_an_image(tmp_path: Path) -> None:
    source = saved(tmp_path, one_each())
    splits = opened(source, "class")
    assert splits.test.classes == ("fox", "bee", "ant")
    found = pairs(splits)
    assert [int(found[key(pixels(number))]) for number in range(COUNT)] == [0, 1, 2] * 4
    named = pairs(opened(source, "class", spec(labels=("ant", "bee", "fox"))))
    assert [int(named[key(pixels(number))]) for number in range(COUNT)] == [2, 1, 0] * 4


def test_images_of_no_or_several_categories_have_no_one_class(tmp_path: Path) -> None:
    content = one_each()
    content["annotations"] += [{**content["annotations"][4], "category_id": ANT}]
    del content["annotations"][7]
    with refused(DataError, 2, COUNT, "004.png", "bee, ant", "007.png"):
        opened(saved(tmp_path, content), "class")


def test_several_classes(tmp_path: Path) -> None:
    content = tree({0: [{"category_id": FOX}, {"category_id": ANT}, {"category_id": FOX}], 5: [{"category_id": BEE}]})
    source = saved(tmp_path, content)
    found = pairs(opened(source, "classes"))
    assert found[key(pixels(0))].tolist() == [1, 0, 1]
    assert found[key(pixels(5))].tolist() == [0, 1, 0]
    assert found[key(pixels(1))].tolist() == [0, 0, 0]
    ordered = pairs(opened(source, "classes", spec(labels=("cat", "ant", "bee", "fox"))))
    assert ordered[key(pixels(0))].tolist() == [0, 1, 0, 1]
    with refused(DataError, "bee", "model.labels"):
        opened(source, "classes", spec(labels=("ant", "fox")))


def test_masks(tmp_path: Path) -> None:
    runs = [0, 2, SIDE * SIDE - 2]  # the first two pixels of the first column
    text = coco_mask.frPyObjects({"size": [SIDE, SIDE], "counts": runs}, SIDE, SIDE)["counts"].decode()
    content = tree(
        {
            0: [
                {"category_id": BEE, "segmentation": square(4, 4, 2)},
                {"category_id": ANT, "segmentation": square(2, 2, 8)},
            ],
            1: [{"category_id": FOX, "segmentation": {"size": [SIDE, SIDE], "counts": runs}}],
            2: [{"category_id": FOX, "segmentation": {"size": [SIDE, SIDE], "counts": text}}],
            3: [
                {"category_id": FOX, "segmentation": square(6, 6, 2)},
                {"category_id": ANT, "segmentation": {"size": [SIDE, SIDE], "counts": [0, SIDE * SIDE]}, "iscrowd": 1},
            ],
            4: [{"category_id": BEE, "segmentation": square(1, 1, 2) + square(10, 10, 3)}],
        }
    )
    splits = opened(saved(tmp_path, content), "mask")
    found = {number: pairs(splits)[key(pixels(number))].numpy() for number in range(6)}
    hidden = np.zeros((SIDE, SIDE), np.int64)
    hidden[2:10, 2:10], hidden[4:6, 4:6] = 3, 2
    assert np.array_equal(found[0], hidden)
    corner = np.zeros((SIDE, SIDE), np.int64)
    corner[:2, 0] = 1
    assert np.array_equal(found[1], corner)
    assert np.array_equal(found[2], corner)
    crowd = np.full((SIDE, SIDE), IGNORED)
    crowd[6:8, 6:8] = 1
    assert np.array_equal(found[3], crowd)
    assert (found[4] == 2).sum() == 4 + 9
    assert not found[5].any()
    assert splits.test.targets is not None
    assert splits.test.targets.numbers.keys() == {0, 1, 2, 3, IGNORED}
    assert splits.test.targets.numbers[3].endswith("000.png")
    assert splits.test.classes == ("background", "fox", "bee", "ant")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 9999), st.booleans())
def test_run_lengths_are_the_pixels_that_were_packed(height: int, width: int, seed: int, as_text: bool) -> None:
    random = np.random.default_rng(seed)
    region = (random.random((height, width)) < random.random()).astype(np.uint8)
    packed = coco_mask.encode(np.asfortranarray(region))
    counts: Any = packed["counts"].decode()
    if not as_text:
        flat = region.flatten(order="F")
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
        counts = np.diff([0, *edges, len(flat)]).tolist()
    shape = Shape(5, {"size": [height, width], "counts": counts}, False, "here")
    picture = Picture("a.png", width, height, (shape,))
    assert np.array_equal(painted(picture, Path("a.json")), region.astype(np.int64) * 5)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=12), st.lists(st.integers(-5, 400), max_size=6), st.none(), st.integers()))
def test_other_run_lengths_are_refused_or_fill_the_image(counts: Any) -> None:
    shape = Shape(1, {"size": [8, 8], "counts": counts}, False, "a.json, annotations[3]")
    picture = Picture("a.png", 8, 8, (shape,))
    if isinstance(counts, list) and sum(counts) == 64 and min(counts) >= 0:
        assert painted(picture, Path("a.json")).sum() == sum(counts[1::2])
        return
    with refused(DataError, "annotations[3]"):
        painted(picture, Path("a.json"))


@pytest.mark.parametrize(
    "region",
    [
        None,
        [],
        [[]],
        [[1, 1, 4, 4]],
        [[1, 1, 4, 1, 4, 4, 1]],
        [[1, 1, 4, 1, "4", 4]],
        [[1, 1, 4, 1, float("nan"), 4]],
        [[1, 1, 4, 1, 1e9, 4]],
        [[1, 1, 4, 1, True, 4]],
        [1, 1, 4, 1, 4, 4],
        {"counts": [64]},
        {"size": [4, 16], "counts": [64]},
        "square",
    ],
)
def test_what_is_no_region_is_refused(tmp_path: Path, region: Any) -> None:
    content = one_each()
    content["annotations"][3]["segmentation"] = region
    source = saved(tmp_path, content)
    with refused(DataError, "annotations[3]"):
        opened(source, "mask")
    opened(source, "class")  # which asks for no region


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    content = one_each()
    source = saved(tmp_path, content)
    splits, section = opened(source, "mask"), DataSection(source=source)
    assert splits.record is not None
    assert len(splits.record.files) == COUNT + 1
    assert changed_since(section, splits.record) == ""
    again = opened(source, "mask", record=splits.record)
    assert torch.equal(next(again.test.batches(9))[1], next(splits.test.batches(9))[1])
    content["annotations"][0]["segmentation"] = square(0, 0, 9)
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert "a.json" in changed_since(section, splits.record)


def test_data_that_were_moved_as_a_whole_are_the_same(tmp_path: Path) -> None:
    before = opened(saved(tmp_path / "here", one_each()), "mask").record
    (tmp_path / "here").rename(tmp_path / "there")
    moved = DataSection(source=f"coco:{tmp_path / 'there' / 'a.json'}@{tmp_path / 'there' / 'photos'}")
    assert before is not None
    assert changed_since(moved, before) == ""


def test_parts_are_files_of_their_own_with_the_same_categories(tmp_path: Path) -> None:
    source = saved(tmp_path / "train", one_each())
    content = one_each()
    save_images(tmp_path / "test" / "photos", 4, start=50)
    content["images"] = [{**one, "file_name": f"{50 + n:03d}.png"} for n, one in enumerate(content["images"][:4])]
    content["annotations"] = content["annotations"][:4]
    (tmp_path / "test" / "a.json").write_text(json.dumps(content))
    test = f"coco:{tmp_path / 'test' / 'a.json'}@{tmp_path / 'test' / 'photos'}"
    splits = opened(source, "mask", test=test)
    assert pairs([splits.test]).keys() == {key(pixels(number)) for number in range(50, 54)}
    content["categories"] = [{"id": 1, "name": "cow"}, *CATEGORIES]
    (tmp_path / "test" / "a.json").write_text(json.dumps(content))
    with refused(DataError, "cow", "fox"):
        opened(source, "mask", test=test)


def test_images_lie_beside_the_file_unless_said(tmp_path: Path) -> None:
    saved(tmp_path, one_each())
    with refused(DataError, COUNT, "000.png", "coco:FILE.json@FOLDER", str(tmp_path)):
        opened(f"coco:{tmp_path / 'a.json'}", "mask")
    (tmp_path / "a.json").rename(tmp_path / "photos" / "a.json")
    assert len(pairs(opened(f"coco:{tmp_path / 'photos' / 'a.json'}", "mask"))) == COUNT


def test_an_image_of_another_size_than_the_file_says_is_refused(tmp_path: Path) -> None:
    content = one_each()
    content["images"][5]["height"] = SIDE + 1
    source = saved(tmp_path, content)
    with refused(DataError, "005.png", f"{SIDE}x{SIDE}", f"{SIDE}x{SIDE + 1}"):
        opened(source, "mask")


def broken(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A good file with one thing of it replaced."""
    content = copy.deepcopy(one_each())
    place: Any = content
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ([], ["annotations"]),
        ({}, ["annotations"]),
        (broken(("annotations",), None), ["annotations"]),
        (broken(("annotations", 0), 5), ["annotations"]),
        (broken(("images",), []), ["images"]),
        (broken(("categories",), []), ["categories"]),
        (broken(("images", 3, "id"), 100), ["images", "id", 100]),
        (broken(("images", 3, "file_name"), "000.png"), ["images", "file_name", "000.png"]),
        (broken(("images", 3, "file_name"), ""), ["images[3]", "file_name"]),
        (broken(("images", 3, "width"), "16"), ["images[3]", "width"]),
        (broken(("categories", 1, "name"), "ant"), ["categories", "name", "ant"]),
        (broken(("categories", 1, "id"), True), ["categories[1]", "id"]),
        (broken(("annotations", 3, "image_id"), 7777), ["annotations[3]", 7777]),
        (broken(("annotations", 3, "category_id"), 7777), ["annotations[3]", 7777]),
        (broken(("annotations", 3, "category_id"), None), ["annotations[3]", "category_id"]),
        (broken(("images", 3, "file_name"), "gone.png"), ["gone.png", 1, COUNT]),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: Any, facts: list[object]) -> None:
    source = saved(tmp_path, content)
    with refused(DataError, *facts):
        opened(source, "class")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with refused(DataError, str(tmp_path / "a.json")):
        opened(f"coco:{tmp_path / 'a.json'}", "class")
    with refused(NoData, str(tmp_path / "b.json")):
        opened(f"coco:{tmp_path / 'b.json'}", "class")


def test_more_categories_than_a_mask_tells_apart_are_refused(tmp_path: Path) -> None:
    content = one_each()
    content["categories"] = CATEGORIES + [{"id": 100 + n, "name": f"c{n}"} for n in range(252)]
    with refused(DataError, 254, 255):
        opened(saved(tmp_path, content), "mask")


def test_numbers_are_not_in_such_a_file(tmp_path: Path) -> None:
    with refused(DataError, "csv:FILE", str(tmp_path / "a.json")):
        opened(saved(tmp_path, one_each()), "values")


def test_masks_need_pycocotools_and_classes_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path, one_each())
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    find_coco(source, "class")
    with refused(ToolkitMissing, "pycocotools", "edgeprune[coco]"):
        opened(source, "mask")
