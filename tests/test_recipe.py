"""The recipe: what is read, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import refused

from edgeprune.errors import RecipeError
from edgeprune.recipe import Recipe, Target
from edgeprune.recipe_file import read_recipe

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
    with refused(RecipeError, "recipe.toml:9", "prune.tolerence", "prune.tolerance"):
        read_recipe(write(tmp_path, GOOD + "tolerence = 0.02\n"))


def test_key_in_the_wrong_table_is_found_in_the_right_one(tmp_path: Path) -> None:
    with refused(RecipeError, "recipe.toml:9", "prune.batch_size", "tune.batch_size"):
        read_recipe(write(tmp_path, GOOD + "batch_size = 3\n"))


def test_unknown_table(tmp_path: Path) -> None:
    with refused(RecipeError, "`tunee`", "`tune`"):
        read_recipe(write(tmp_path, GOOD + "[tunee]\nepochs = 3\n"))


@pytest.mark.parametrize(
    ("extra", "line", "key"),
    [
        ("[tune]\nepochs = 'many'\n", 10, "tune.epochs"),
        ("[device]\nruntime = 'tensorrt'\n", 10, "device.runtime"),
        ("[verify.gates]\nint8_agreement = 'yes'\n", 10, "verify.gates.int8_agreement"),
        ("corrections = -1\n", 9, "prune.corrections"),
        ("[tune]\nlr = inf\n", 10, "tune.lr"),
        ("auto_minutes = inf\n", 9, "prune.auto_minutes"),
        ("tolerance = nan\n", 9, "prune.tolerance"),
    ],
)
def test_wrong_type_names_key_and_line(tmp_path: Path, extra: str, line: int, key: str) -> None:
    with refused(RecipeError, f"recipe.toml:{line}", key, *(["finite"] if extra.endswith(("inf\n", "nan\n")) else [])):
        read_recipe(write(tmp_path, GOOD + extra))


def test_not_toml_and_missing_file(tmp_path: Path) -> None:
    with refused(RecipeError, "recipe.toml", "TOML", "line 1"):
        read_recipe(write(tmp_path, "[model\n"))
    with refused(RecipeError, tmp_path / "absent.toml"):
        read_recipe(tmp_path / "absent.toml")


def test_one_model_source(tmp_path: Path) -> None:
    with refused(RecipeError, "model", "`name`", "`factory`"):
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
    with refused(RecipeError, repr(text), "0.5x", "8ms"):
        Target.parse(text)


@pytest.mark.parametrize(
    "extra",
    [
        "[tune]\nepochs = true\n",
        "[tune]\nepochs = '5'\n",
        "[tune]\nlr = true\n",
        "[tune]\ncuda_graphs = 1\n",
        "[tune]\ncuda_graphs = 'no'\n",
        "[verify]\nimages = true\n",
        "[verify.gates]\naccuracy_drop = true\n",
        "[verify.gates]\nint8_agreement = '0.9'\n",
        "[sparse]\nzeros = 0.5\nblock = true\n",
        "regrow = false\n",
    ],
)
def test_a_switch_is_no_number_and_a_text_is_neither(tmp_path: Path, extra: str) -> None:
    *_, line = extra.splitlines()
    with pytest.raises(RecipeError, match=rf":\d+: `[a-z0-9_.]*\.{line.split()[0]}`: "):
        read_recipe(write(tmp_path, GOOD + extra))


@pytest.mark.parametrize(
    "model",
    ["mean = [true, 0, 0]", "std = ['1', 1, 1]", "input_size = [3, true, 32]", "untrained = 'false'", "labels = [1]"],
)
def test_nor_is_one_in_a_list(tmp_path: Path, model: str) -> None:
    key = model.split(maxsplit=1)[0]
    with pytest.raises(RecipeError, match=rf":4: `model.{key}(\.0)?`: "):
        read_recipe(write(tmp_path, GOOD.replace("[model]\n", f"[model]\n{model}\n")))


def test_nor_at_the_top(tmp_path: Path) -> None:
    for line in ("seed = true", "version = true"):
        with pytest.raises(RecipeError, match=rf":1: `{line.split()[0]}`: "):
            read_recipe(write(tmp_path, GOOD.replace("\nversion = 1", line)))


def test_a_gate_may_be_switched_off_and_numbers_may_be_whole(tmp_path: Path) -> None:
    gates = read_recipe(write(tmp_path, GOOD + "[verify.gates]\nint8_agreement = false\nsize_bytes = 9\n")).verify.gates
    assert gates.int8_agreement is False
    assert gates.size_bytes == 9


@pytest.mark.parametrize(
    "gate",
    [
        "int8_agreement = 97",
        "host_agreement = 1.5",
        "int8_agreement = -0.1",
        "accuracy_drop = 1",
        "int8_accuracy_drop = 50",
        "host_accuracy_drop = -0.1",
        "size_bytes = 0",
        "peak_memory_bytes = -5",
        "latency_tolerance = -0.5",
    ],
)
def test_gates_that_nothing_or_everything_passes_are_refused(tmp_path: Path, gate: str) -> None:
    """A drop of 50, meant as percent, would pass whatever is left of a model."""
    with pytest.raises(RecipeError, match=rf":10: `verify.gates.{gate.split(maxsplit=1)[0]}`: "):
        read_recipe(write(tmp_path, GOOD + f"[verify.gates]\n{gate}\n"))


def test_nothing_to_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r":10: `export.formats`: .*at least 1"):
        read_recipe(write(tmp_path, GOOD + "[export]\nformats = []\n"))


def test_a_recipe_of_another_encoding_is_told_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(GOOD, encoding="utf-16")
    with refused(RecipeError, path, "UTF-8"):
        read_recipe(path)


@pytest.mark.parametrize("zero", ["0", "0.0", "-0.0"])
def test_a_drop_of_nothing_is_a_gate_and_stays_one(tmp_path: Path, zero: str) -> None:
    """0 equals False, and pydantic took the one for the other: the gate was off, and whatever was left passed."""
    recipe = read_recipe(write(tmp_path, GOOD + f"[verify.gates]\naccuracy_drop = {zero}\n"))
    again = Recipe.model_validate_json(recipe.model_dump_json())
    for one in (recipe, again):
        assert one.verify.gates.accuracy_drop is not False
        assert one.verify.gates.accuracy_drop == 0
