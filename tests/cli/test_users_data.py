"""Data and labels as users bring them: refused at load with exit code 2, before anything is measured or trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_job import INPUT, Done, inside, leftovers, write_job

import edgeprune
from edgeprune.errors import DataError, EdgePruneError, ModelError, RecipeError, UsageError
from edgeprune.recipe_file import read_recipe

NAMES = [f"digit{number}" for number in range(10)]


def photos(root: Path, names: list[str], each: int = 4, start: int = 0) -> Path:
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(each):
            pixels = np.random.default_rng(start + 100 * place + number).integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def run(folder: Path, source: Path | str, *, model: dict[str, Any] | None = None, **data: Any) -> Done:
    recipe = write_job(folder, model=model or {}, data={"source": str(source), **data})
    done = inside("run", recipe, "--out", folder / "run")
    assert leftovers(folder / "run") == []
    assert not (folder / "run" / "probe").exists()
    return done


def test_a_class_without_a_folder(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", NAMES[:9])
    run(tmp_path, root).fails(DataError, 9, 10, "model.labels")
    with pytest.raises(UsageError):
        edgeprune.run(tmp_path / "recipe.toml", tmp_path / "again")


def test_splits_that_are_copies(tmp_path: Path) -> None:
    photos(tmp_path / "photos" / "Training", NAMES)
    shutil.copytree(tmp_path / "photos" / "Training", tmp_path / "photos" / "Testing")
    run(tmp_path, tmp_path / "photos").fails(DataError, "40 of 40")
    run(tmp_path, f"timm:{tmp_path / 'photos'}").fails(DataError, "40 of 40")


def test_a_broken_body_is_found_before_the_device_is_asked(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", NAMES)
    broken = root / "digit3" / "2.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    run(tmp_path, root).fails(DataError, broken)


def test_one_image_a_class_and_none_to_calibrate_on(tmp_path: Path) -> None:
    run(tmp_path, photos(tmp_path / "photos", NAMES[:2], each=1), model={"labels": NAMES}).fails(DataError, 2)


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [
        ("\n".join(NAMES[:9]), ModelError, [9, 10]),
        ("\n".join([*NAMES[:9], "digit0"]), RecipeError, [1, 10, "digit0"]),
        ("\n".join(["", *NAMES[1:]]), RecipeError, [1]),
        ("", RecipeError, ["names.txt"]),
        (json.dumps({"0": "digit0"}), RecipeError, ["JSON"]),
        (json.dumps([*NAMES[:9], 9]), RecipeError, [10]),
        ("[" * 5000, RecipeError, ["names.txt"]),
        ("\n".join([*NAMES[:9], "nine"]), DataError, ["digit9"]),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, text: str, kind: type[EdgePruneError], facts: list[object]) -> None:
    root = photos(tmp_path / "photos", NAMES)
    (tmp_path / "names.txt").write_text(text)
    run(tmp_path, root, model={"labels": "names.txt"}).fails(kind, *facts)
    options = ("--input-size", ",".join(map(str, INPUT)), "--target", "0.5x", "--data", root, "--out", tmp_path / "p")
    inside("prune", f"{tmp_path / 'tiny.py'}:tiny", *options, "--labels", tmp_path / "names.txt").fails(kind, *facts)


def test_labels_that_are_no_file(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", NAMES)
    for name in ("none.txt", "photos"):
        run(tmp_path, root, model={"labels": name}).fails(RecipeError, tmp_path / name)
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    run(tmp_path, root, model={"labels": "bytes.txt"}).fails(RecipeError, tmp_path / "bytes.txt")
    for labels in (7, [1, 2], [["a"]]):
        run(tmp_path, root, model={"labels": labels}).fails(RecipeError, "model.labels")


def test_labels_are_read_into_the_recipe_from_text_and_json_alike(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(NAMES).encode() + b"\r\n\r\n")
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    for labels in ("names.txt", "names.json", NAMES):
        recipe = read_recipe(write_job(tmp_path, model={"labels": labels}))
        assert recipe.model.labels == tuple(NAMES)


def test_the_library_takes_labels_too(tmp_path: Path) -> None:
    write_job(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    factory = f"{tmp_path / 'tiny.py'}:tiny"
    root = photos(tmp_path / "photos", [*NAMES[:9], "nine"])
    for labels in (NAMES, tuple(NAMES), tmp_path / "names.txt", str(tmp_path / "names.txt")):
        with pytest.raises(UsageError, match="nine"):
            edgeprune.prune(
                factory, input_size=INPUT, target="0.5x", data=str(root), labels=labels, out=tmp_path / "run"
            )
