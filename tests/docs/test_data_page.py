"""Each source of docs/data.md, opened as it stands there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from pages import code_in
from PIL import Image

from edgeprune.data.open import open_data
from edgeprune.data.split import Splits
from edgeprune.recipe_file import read_recipe
from edgeprune.tasks.registry import task_of

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))

from small_data import NAMES, pixels, spec

MODEL = '[model]\nname = "resnet18"\n\n'


def opened(section: str, recipe: str, folder: Path, *, classes: int = 3) -> Splits:
    files = code_in("data.md", section)
    for number, name in enumerate(files.pop("files", "").split()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = pixels(number)
        Image.fromarray(image[..., 0] % 3 if name.startswith("masks") else image).save(folder / name)
    for name, content in files.items():
        (folder / name).write_text(MODEL + content if name.endswith(".toml") else content)
    asked = read_recipe(folder / recipe)
    return open_data(asked.data, spec(classes=classes), seed=0, kind=task_of(asked.task).target)


def targets(splits: Splits) -> torch.Tensor:
    """Of all images, each once."""
    return torch.cat([targets for name in NAMES for _, targets in getattr(splits, name).batches(4)])


@pytest.mark.parametrize(("recipe", "count"), [("folder.toml", 8), ("table.toml", 6)])
def test_a_class(tmp_path: Path, recipe: str, count: int) -> None:
    splits = opened("A class", recipe, tmp_path, classes=2)
    assert torch.bincount(targets(splits)).tolist() == [count // 2, count // 2]
    assert splits.test.classes == ("cat", "dog")


@pytest.mark.parametrize("recipe", ["names.toml", "columns.toml"])
def test_several_classes(tmp_path: Path, recipe: str) -> None:
    splits = opened("Several classes", recipe, tmp_path)
    assert sorted(targets(splits).tolist()) == sorted(
        [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]]
    )
    assert splits.test.classes == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("recipe", "numbers"), [("folder.toml", {0, 1, 2}), ("table.toml", {0, 1, 2}), ("objects.toml", {0, 1, 2, 255})]
)
def test_masks(tmp_path: Path, recipe: str, numbers: set[int]) -> None:
    found = targets(opened("Masks", recipe, tmp_path))
    assert found.shape == (6, 16, 16)
    assert set(found.unique().tolist()) == numbers
    if recipe == "objects.toml":
        assert ((found == 1).sum(), (found == 255).sum()) == (36, 64)


@pytest.mark.parametrize(("recipe", "shape"), [("columns.toml", (6, 2)), ("folder.toml", (6, 3, 16, 16))])
def test_numbers(tmp_path: Path, recipe: str, shape: tuple[int, ...]) -> None:
    found = targets(opened("Numbers", recipe, tmp_path))
    assert found.shape == shape
    assert int(found.isnan().sum()) == (1 if recipe == "columns.toml" else 0)


def test_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code_in("data.md", "Arrays")["save.py"], "docs/data.md", "exec"), {})
    splits = opened("Arrays", "arrays.toml", tmp_path)
    assert targets(splits).shape == (12, 16, 16)
    assert len(splits.test) == 4


def test_a_data_set_of_your_own(tmp_path: Path) -> None:
    splits = opened("A data set of your own", "own.toml", tmp_path)
    for images, places in splits.test.batches(4):
        white = images[:, 0].flatten(1).argmax(1)
        assert torch.equal(white, (places[:, 0] * 256 + places[:, 1] * 16).long())
    assert len(splits.test) == 4
