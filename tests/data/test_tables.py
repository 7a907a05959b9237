"""csv:FILE: what each row says of its image, for each kind of task, and every row that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from PIL import Image
from small_data import Said, csv_file, key, opened, pairs, pixels, save_images, spec

from edgeprune.data.folders import NoData
from edgeprune.data.open import changed_since
from edgeprune.errors import DataError
from edgeprune.recipe import DataSection, TargetKind
from edgeprune.recipe_file import parse_recipe, resolve_paths

COUNT = 12
NAMED = ("cat", "dog", "eel")


def listed(folder: Path, count: int = COUNT) -> list[dict[str, object]]:
    """A row for each image, with its path alone."""
    return [{"image": file.relative_to(folder)} for file in save_images(folder / "photos", count)]


def with_column(rows: list[dict[str, object]], **columns: Any) -> list[dict[str, object]]:
    return [{**row, **{name: cells[i] for name, cells in columns.items()}} for i, row in enumerate(rows)]


def targets(source: str, kind: TargetKind, **more: Any) -> list[Any]:
    """Of the images in the order of the rows."""
    found = pairs(opened(source, kind, **more))
    assert len(found) == COUNT
    return [found[key(pixels(number))] for number in range(COUNT)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_classes_by_name_are_in_text_order(tmp_path: Path, delimiter: str) -> None:
    rows = with_column(listed(tmp_path), label=[("eel", "cat", "dog")[i % 3] for i in range(COUNT)])
    source = csv_file(tmp_path / "all.csv", rows, delimiter=delimiter)
    assert [int(one) for one in targets(source, "class")] == [2, 0, 1] * 4
    assert opened(source, "class").test.classes == NAMED
    other = targets(source, "class", model=spec(labels=("eel", "dog", "cat")))
    assert [int(one) for one in other] == [0, 2, 1] * 4


def test_labels_that_are_numbers_are_the_models_outputs(tmp_path: Path) -> None:
    rows = with_column(listed(tmp_path), label=[(10, 2, 0)[i % 3] for i in range(COUNT)])
    source = csv_file(tmp_path / "all.csv", rows)
    assert [int(one) for one in targets(source, "class", model=spec(classes=11))] == [10, 2, 0] * 4
    assert [int(one) for one in targets(source, "identity")] == [1, 2, 0] * 4  # "0", "10", "2": no outputs are meant


def test_the_rows_say_the_splits(tmp_path: Path) -> None:
    words = ["Training"] * 8 + ["val"] * 2 + ["test_set"] * 2
    rows = with_column(listed(tmp_path), split=words, label=[NAMED[i % 3] for i in range(COUNT)])
    said = Said()
    splits = opened(csv_file(tmp_path / "all.csv", rows), "class", progress=said)
    assert pairs([splits.test]).keys() == {key(pixels(number)) for number in (10, 11)}
    trained = pairs([splits.train, splits.validation, splits.calibration])
    assert trained.keys() == {key(pixels(number)) for number in range(8)}
    assert "2 validation images" in said.text
    without = opened(csv_file(tmp_path / "some.csv", rows[:10]), "class")
    assert pairs([without.test]).keys() == {key(pixels(number)) for number in (8, 9)}


def test_tables_of_training_and_testing(tmp_path: Path) -> None:
    rows = with_column(listed(tmp_path), label=[NAMED[i % 3] for i in range(COUNT)])
    one, other = csv_file(tmp_path / "one.csv", rows[:9]), csv_file(tmp_path / "other.csv", rows[9:])
    splits = opened(one, "class", test=other)
    assert pairs([splits.test]).keys() == {key(pixels(number)) for number in (9, 10, 11)}
    with refused(DataError, "test", "train"):
        opened(one, "class", train=one, test=one)


def test_several_classes_by_name(tmp_path: Path) -> None:
    cells = ["cat; dog", "", "eel"] * 4
    source = csv_file(tmp_path / "all.csv", with_column(listed(tmp_path), labels=cells))
    said = Said()
    assert [one.tolist() for one in targets(source, "classes", progress=said)] == [[1, 1, 0], [0, 0, 0], [0, 0, 1]] * 4
    assert "cat, dog, eel" in said.text
    backwards = targets(source, "classes", model=spec(labels=("eel", "dog", "cat", "fox")))
    assert [one.tolist() for one in backwards] == [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]] * 4
    with refused(DataError, "eel", f"{tmp_path / 'all.csv'}:4"):
        opened(source, "classes", spec(labels=("cat", "dog")))


def test_several_classes_by_columns(tmp_path: Path) -> None:
    rows = with_column(listed(tmp_path), dog=[i % 2 for i in range(COUNT)], cat=[int(i == 3) for i in range(COUNT)])
    source = csv_file(tmp_path / "all.csv", rows)
    assert [one.tolist() for one in targets(source, "classes")] == [[i % 2, int(i == 3)] for i in range(COUNT)]
    assert opened(source, "classes").test.classes == ("dog", "cat")
    ordered = targets(source, "classes", model=spec(labels=("cat", "dog")))
    assert [one.tolist() for one in ordered] == [[int(i == 3), i % 2] for i in range(COUNT)]
    with refused(DataError, "fox", "model.labels"):
        opened(source, "classes", spec(labels=("cat", "dog", "fox")))


def test_parts_with_columns_in_another_order_are_refused(tmp_path: Path) -> None:
    rows = with_column(listed(tmp_path), dog=[i % 2 for i in range(COUNT)], cat=[1 - i % 2 for i in range(COUNT)])
    other = [{"image": row["image"], "cat": row["cat"], "dog": row["dog"]} for row in rows[9:]]
    sources = csv_file(tmp_path / "one.csv", rows[:9]), csv_file(tmp_path / "other.csv", other)
    with refused(DataError, "dog, cat", "cat, dog", "model.labels"):
        opened(sources[0], "classes", test=sources[1])
    known = opened(sources[0], "classes", spec(labels=("cat", "dog")), test=sources[1])
    assert pairs([known.test])[key(pixels(9))].tolist() == [0, 1]


def test_numbers(tmp_path: Path) -> None:
    x, y = [i / 4 for i in range(COUNT)], ["nan" if i == 5 else -i for i in range(COUNT)]
    found = targets(csv_file(tmp_path / "all.csv", with_column(listed(tmp_path), x=x, y=y)), "values")
    assert found[3].dtype == torch.float32
    assert found[3].tolist() == [0.75, -3.0]
    assert found[5].isnan().tolist() == [False, True]


def test_masks_and_maps_are_files(tmp_path: Path) -> None:
    rows = listed(tmp_path)
    for number in range(COUNT):
        Image.fromarray(np.full((16, 16), number, np.uint8)).save(tmp_path / f"m{number}.png")
    masks = with_column(rows, mask=[tmp_path / f"m{number}.png" for number in range(COUNT)])
    assert [one.unique().tolist() for one in targets(csv_file(tmp_path / "a.csv", masks), "mask")] == [
        [number] for number in range(COUNT)
    ]
    maps = with_column(rows, target=[f"m{number}.png" for number in range(COUNT)])
    found = targets(csv_file(tmp_path / "b.csv", maps), "values")
    assert torch.allclose(found[3], torch.full((1, 16, 16), 3 / 255))


def test_a_changed_table_or_mask_is_noticed(tmp_path: Path) -> None:
    rows = listed(tmp_path)
    for number in range(COUNT):
        Image.fromarray(np.full((16, 16), number % 3, np.uint8)).save(tmp_path / f"m{number}.png")
    rows = with_column(rows, mask=[f"m{number}.png" for number in range(COUNT)])
    source = csv_file(tmp_path / "all.csv", rows)
    splits, section = opened(source, "mask"), DataSection(source=source)
    assert splits.record is not None
    assert changed_since(section, splits.record) == ""
    again = opened(source, "mask", record=splits.record)
    assert pairs([again.test]).keys() == pairs([splits.test]).keys()
    Image.fromarray(np.full((16, 16), 1, np.uint8)).save(tmp_path / "m3.png")
    assert "m3.png" in changed_since(section, splits.record)
    csv_file(tmp_path / "all.csv", rows[:-1])
    assert "all.csv" in changed_since(section, splits.record)


def test_quotes_blank_lines_and_a_mark_of_the_order_of_bytes(tmp_path: Path) -> None:
    rows = listed(tmp_path)
    lines = ["", " Image , LABEL ", *(f'"{row["image"]}", {NAMED[i % 3]} ' for i, row in enumerate(rows)), "", ","]
    (tmp_path / "all.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    assert [int(one) for one in targets(f"csv:{tmp_path / 'all.csv'}", "class")] == [0, 1, 2] * 4


def test_columns_that_are_not_used_are_told(tmp_path: Path) -> None:
    rows = with_column(listed(tmp_path), width=[16] * COUNT, label=[NAMED[i % 3] for i in range(COUNT)])
    said = Said()
    opened(csv_file(tmp_path / "all.csv", rows), "class", progress=said)
    assert "width" in said.text


# What is wrong, told with its line


def changed(rows: list[dict[str, object]], place: int, **cells: object) -> list[dict[str, object]]:
    return [{**row, **cells} if number == place else row for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("kind", "columns", "cells", "facts"),
    [
        ("class", {"label": NAMED * 4}, {"image": "photos/gone.png"}, ["photos/gone.png", 1, 12]),
        ("class", {"label": NAMED * 4}, {"image": ""}, ["image"]),
        ("class", {"label": NAMED * 4}, {"image": "x" * 5000}, [1, 12]),
        ("class", {"label": NAMED * 4}, {"image": "photos/../photos/001.png"}, ["001.png", 3]),
        ("class", {"label": NAMED * 4}, {"label": ""}, ["label"]),
        ("class", {"label": [0, 1, 2] * 4}, {"label": 1 << 20}, [1 << 20]),
        ("class", {"split": ["train", "test"] * 6, "label": NAMED * 4}, {"split": "mine"}, ["mine", "validation"]),
        ("class", {"split": ["train", "test"] * 6, "label": NAMED * 4}, {"split": ""}, ["split"]),
        ("classes", {"cat": [0, 1] * 6}, {"cat": "yes"}, ["cat", "yes"]),
        ("classes", {"cat": [0, 1] * 6}, {"cat": ""}, ["cat"]),
        ("values", {"x": [0.5] * 12}, {"x": "far"}, ["x", "far"]),
        ("values", {"x": [0.5] * 12}, {"x": "inf"}, ["x", "inf"]),
        ("values", {"x": [0.5] * 12}, {"x": 1e39}, ["x"]),
        ("values", {"x": [0.5] * 12}, {"x": ""}, ["x"]),
        ("mask", {"mask": ["photos/000.png"] * 12}, {"mask": "m.png"}, ["m.png", "mask"]),
        ("values", {"target": ["photos/000.png"] * 12}, {"target": ""}, ["target"]),
    ],
)
def test_a_wrong_row_is_refused(
    tmp_path: Path, kind: TargetKind, columns: dict[str, Any], cells: dict[str, object], facts: list[object]
) -> None:
    rows = changed(with_column(listed(tmp_path), **columns), 6, **cells)
    with refused(DataError, f"{tmp_path / 'all.csv'}:8", *facts):
        opened(csv_file(tmp_path / "all.csv", rows), kind)


@pytest.mark.parametrize(
    ("kind", "columns", "lacking"),
    [("class", {"name": NAMED * 4}, "label"), ("mask", {"target": NAMED * 4}, "mask"), ("classes", {}, "labels")],
)
def test_a_lacking_column_is_named(tmp_path: Path, kind: TargetKind, columns: dict[str, Any], lacking: str) -> None:
    source = csv_file(tmp_path / "all.csv", with_column(listed(tmp_path), **columns))
    with refused(DataError, lacking, f"{tmp_path / 'all.csv'}:1"):
        opened(source, kind)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("", []),
        ("image,label\n", []),
        ("photos/000.png,cat\nphotos/001.png,dog\n", ["image", "all.csv:1"]),
        ("image,label,label\na,b,c\n", ["label", "all.csv:1"]),
        ("image,,label\na,b,c\n", [2, "all.csv:1"]),
        ("image,label\na,b\nc\n", ["all.csv:3", 1, 2]),
        ("image,label\na,b,c\n", ["all.csv:2", 3, 2]),
        ('image,label\na,"b" c\n', ["all.csv:2"]),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, facts: list[object]) -> None:
    listed(tmp_path, 2)
    (tmp_path / "all.csv").write_text(text)
    with refused(DataError, "all.csv", *facts):
        opened(f"csv:{tmp_path / 'all.csv'}", "class")


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_bytes(b"image,label\n\xff\xfe\n")
    with refused(DataError, "UTF-8", str(tmp_path / "all.csv")):
        opened(f"csv:{tmp_path / 'all.csv'}", "class")
    with refused(NoData, str(tmp_path / "other.csv")):
        opened(f"csv:{tmp_path / 'other.csv'}", "class")


@pytest.mark.parametrize("kind", ["class", "mask"])
def test_a_table_without_its_prefix_is_told_how_to_write_it(tmp_path: Path, kind: TargetKind) -> None:
    (tmp_path / "all.csv").touch()
    with refused(DataError, "csv:all.csv"):
        opened(str(tmp_path / "all.csv"), kind)


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    source = csv_file(tmp_path / "all.csv", with_column(listed(tmp_path), label=[0, 5, 2] * 4))
    with refused(DataError, 6, 3):
        opened(source, "class")
    with refused(DataError, "eel", "model.labels"):
        rows = with_column(listed(tmp_path), label=NAMED * 4)
        opened(csv_file(tmp_path / "all.csv", rows), "class", spec(labels=("cat", "dog", "fox")))


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    with refused(DataError, str(tmp_path / "all.csv")):
        opened(csv_file(tmp_path / "all.csv", with_column(listed(tmp_path), label=["cat"] * COUNT)), "class")


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    rows = with_column(listed(tmp_path), label=NAMED * 4)
    (tmp_path / "photos" / "004.png").write_bytes(b"")
    with refused(DataError, str(tmp_path / "photos" / "004.png")):
        opened(csv_file(tmp_path / "all.csv", rows), "class")


def test_paths_in_a_recipe_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "all.csv").touch()
    tree = {
        "model": {"name": "resnet18"},
        "data": {"source": "csv:all.csv", "train": "coco:a.json@photos", "test": "coco:b.json"},
    }
    data = resolve_paths(parse_recipe(tree), tmp_path).data
    assert data.source == f"csv:{tmp_path / 'all.csv'}"
    assert data.train == f"coco:{tmp_path / 'a.json'}@{tmp_path / 'photos'}"
    assert data.test == f"coco:{tmp_path / 'b.json'}"
