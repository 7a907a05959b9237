"""2,000 mutated recipes: each is read, or refused in our own words."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mutations import SEED, Judge, Mutator, toml

from edgeprune.data.images import Geometry
from edgeprune.errors import RecipeError
from edgeprune.pipeline import _seed
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import read_recipe
from edgeprune.runs import RunInfo, settings_hash

COUNT = 2000
FULL: dict[str, Any] = {
    "version": 1,
    "seed": 3,
    "model": {
        "factory": "tiny.py:tiny",
        "arguments": {"width": 32, "widths": [1, 2.5], "deep": {"a": ["b", True]}},
        "checkpoint": "weights.safetensors",
        "num_classes": 10,
        "input_size": [3, 224, 224],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
    },
    "data": {"source": "digits", "test": "test", "validation_images": 100, "resize": 256, "crop_pct": 0.9},
    "device": {"id": "local", "threads": 2, "protocol": "quick", "wait_minutes": 1.5},
    "prune": {"target": "0.6x", "tolerance": 0.9, "granularity": 8, "keep": ["stem*"], "auto_minutes": 3.0},
    "sparse": {"zeros": 0.5, "block": 2},
    "tune": {"epochs": 2, "batch_size": 128, "lr": 0.01, "temperature": 4.0, "augment": "crop"},
    "quantize": {"enabled": True},
    "export": {"formats": ["tflite", "onnx"]},
    "verify": {"images": 32, "gates": {"latency_tolerance": 9.0, "int8_agreement": False}},
}


def light_parts_of_load(recipe: Recipe) -> None:
    """What is done with a recipe's values before a model is built."""
    text = RunInfo(recipe=recipe, versions={}).model_dump_json()
    assert RunInfo.model_validate_json(text).recipe == recipe
    settings_hash(recipe, ("model", "data", "device", "prune", "tune"))
    _seed(recipe.seed)
    size = recipe.model.input_size or (3, 224, 224)
    crop = recipe.data.crop_pct or 0.9
    found = Geometry.of(size, interpolation="bicubic", crop_pct=crop, resize=recipe.data.resize)
    assert found.cover_height * found.cover_width * found.channels < 1 << 31


def test_mutated_recipes(tmp_path: Path) -> None:
    mutator, judge = Mutator(SEED), Judge()
    state = random.getstate()
    path = tmp_path / "recipe.toml"
    plain = toml(FULL).encode()
    assert tomllib.loads(plain.decode()) == FULL
    for number in range(COUNT):
        content = mutator.bytes(plain) if number % 4 == 0 else toml(mutator.tree(FULL)).encode(errors="surrogatepass")
        path.write_bytes(content)
        judge.look(lambda: light_parts_of_load(read_recipe(path)), (number, content))
    random.setstate(state)
    judge.saw_both(COUNT // 20)


DEEP = 100_000


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("model", "arguments = " + "[" * DEEP + "]" * DEEP),
        ("model", "arguments.x = " + "{a = " * 500 + "1" + "}" * 500),
        ("model", "arguments." + ".".join("a" * 2000) + " = 1"),
        ("model", "num_classes = " + "9" * 5000),
        ("model", "num_classes = 0x" + "f" * 5000),
        ("model", "arguments = {x = 0x" + "f" * 5000 + "}"),
        ("model", "arguments = {x = [1, {y = inf}]}"),
        ("model", "arguments = {x = nan}"),
        ("model", "arguments = {when = 2026-01-01}"),
        ("model", 'arguments = {x = "\\u0000"}'),
        ("model", 'checkpoint = "a\\u0000b"'),
        ("model", 'checkpoint = "~nouser-of-that-name/x.pt"'),
        ("model", 'factory = "a\\u0000.py:f"'),
        ("model", "input_size = [3, 0, 224]"),
        ("model", "input_size = [3, 100000, 100000]"),
        ("model", "input_size = [8192, 8192, 8192]"),
        ("model", "input_size = [-3, 224, 224]"),
        ("model", "num_classes = 1000000000"),
        ("model", "std = [0.0, 0.0, 0.0]"),
        ("model", "std = [0.2, 0.2]\ninput_size = [3, 32, 32]"),
        ("data", "crop_pct = 1e-9"),
        ("data", "resize = 100000"),
        ("data", "resize = -1"),
        ("data", "validation_images = 10000000000000000000000"),
        ("data", 'source = "~nouser-of-that-name/photos"'),
        ("data", 'source = "npz:~nouser-of-that-name/x.npz"'),
        ("data", 'test = "a\\u0000b"'),
        ("device", "threads = 1000000000"),
        ("device", "wait_minutes = 1e300"),
        ("device", 'id = ""'),
        ("tune", "epochs = 10000000000"),
        ("tune", "batch_size = 10000000000000"),
        ("tune", "lr = 1e300"),
        ("prune", "granularity = 100000000000"),
        ("prune", 'target = "1e999ms"'),
        ("prune", 'target = "' + "9" * 5000 + 'x"'),
        ("prune", 'keep = ["\\u0000"]'),
        ("verify", "images = 100000000000000000000"),
        ("verify", "gates = {latency_tolerance = inf}"),
        ("", "seed = -1"),
        ("", "seed = 4294967296"),
        ("", "seed = " + "9" * 5000),
        ("", '"\\u0000" = 1'),
    ],
)
def test_a_value_that_cannot_be_is_refused_at_its_line(tmp_path: Path, section: str, line: str) -> None:
    sections = {"model": 'factory = "tiny.py:tiny"', "data": 'source = "digits"', "device": "", "tune": ""}
    sections |= {"prune": "", "verify": ""}
    key = line.partition(" =")[0]
    own = sections.get(section, "")
    if own.partition(" =")[0] == key:
        sections[section] = ""
    lines = ["# a recipe", *([line] if not section else [])]
    for name, text in sections.items():
        lines += [f"[{name}]", *([text] if text else []), *([line] if name == section else [])]
    path = tmp_path / "recipe.toml"
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeError) as refused:
        read_recipe(path)
    assert refused.value.exit_code == 2
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 2000
    if not any(word in str(refused.value) for word in ("deep", "cannot be a key", "`model`: ")):
        assert f"recipe.toml:{lines.index(line) + 1}" in str(refused.value)


@pytest.mark.parametrize("kind", ["folder", "endless", "large", "utf-16", "empty", "name"])
def test_what_is_no_recipe_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recipe.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "endless":
        path = Path("/dev/zero")
    elif kind == "large":
        path.write_bytes(b"# x\n" * (1 << 20))
    elif kind == "name":
        path = tmp_path / ("x" * 5000)
    else:
        path.write_bytes("seed = 1\n".encode("utf-16") if kind == "utf-16" else b"")
    with pytest.raises(RecipeError):
        read_recipe(path)


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """Editors of Windows begin a file so."""
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbf" + toml(FULL).encode())
    assert read_recipe(path).seed == 3
