"""The recipe: what is read, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import RecipeError
from edgeprune.recipe import Target, read_recipe

GOOD = """
version = 1
[model]
name = "resnet18"
[data]
source = "digits"
[prune]
target = "8ms"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, GOOD))
    assert recipe.prune.target == "8ms"
    assert recipe.device.id == "local"
    assert recipe.export.formats == ("tflite", "pte", "coreml", "onnx")


def test_unknown_key_names_the_nearest_and_the_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe.toml:9: unknown key `prune.tolerence`") as caught:
        read_recipe(write(tmp_path, GOOD + "tolerence = 0.02\n"))
    assert caught.value.hint == "did you mean `prune.tolerance`?"


def test_key_in_the_wrong_table_is_found_in_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(write(tmp_path, GOOD + "batch_size = 3\n"))
    assert caught.value.hint == "did you mean `tune.batch_size`?"


def test_unknown_table(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown key `tunee`") as caught:
        read_recipe(write(tmp_path, GOOD + "[tunee]\nepochs = 3\n"))
    assert caught.value.hint == "did you mean `tune`?"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("[tune]\nepochs = 'many'\n", r":10: `tune.epochs`"),
        ("[device]\nruntime = 'tensorrt'\n", r":10: `device.runtime`"),
        ("[verify.gates]\nint8_agreement = 'yes'\n", r":10: `verify.gates.int8_agreement"),
        ("corrections = -1\n", r":9: `prune.corrections`"),
        ("[tune]\nlr = inf\n", "finite number"),
        ("auto_minutes = inf\n", "finite number"),
        ("tolerance = nan\n", "finite number"),
    ],
)
def test_wrong_type_names_key_and_line(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(write(tmp_path, GOOD + extra))


def test_not_toml_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not valid TOML"):
        read_recipe(write(tmp_path, "[model\n"))
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        read_recipe(tmp_path / "absent.toml")


def test_one_model_source(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="exactly one of `name`"):
        read_recipe(write(tmp_path, GOOD.replace('name = "resnet18"', "")))


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    (tmp_path / "net.py").touch()
    text = GOOD.replace('name = "resnet18"', 'factory = "net.py:make"\ncheckpoint = "w.safetensors"')
    recipe = read_recipe(write(tmp_path, text))
    assert recipe.model.checkpoint == tmp_path / "w.safetensors"
    assert recipe.model.factory == f"{tmp_path / 'net.py'}:make"


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("0.5x", 0.5, "x"),
        ("8ms", 8, "ms"),
        ("150MMACs", 150, "MMACs"),
        ("1.2 Mparams", 1.2, "Mparams"),
        ("900kb", 900, "KB"),
    ],
)
def test_targets(text: str, value: float, unit: str) -> None:
    target = Target.parse(text)
    assert (target.value, target.unit) == (value, unit)
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize("text", ["fast", "0x", "-1ms", "5 parsecs", "", "ms"])
def test_unreadable_targets(text: str) -> None:
    with pytest.raises(RecipeError, match="cannot read the target"):
        Target.parse(text)
