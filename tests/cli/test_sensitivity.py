"""`edgeprune sensitivity`: every type of layer by itself, on validation images, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import torch
from facts import refused
from torch import nn
from typer.testing import CliRunner

import edgeprune
from edgeprune.cli import app
from edgeprune.data.open import open_data
from edgeprune.data.split import Splits
from edgeprune.errors import DataError, UsageError
from edgeprune.graph.weights import find_weights
from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe
from edgeprune.sensitivities import GATE, types_of_layers
from edgeprune.space.find import find_structure

RECIPE = """
[model]
factory = "{factory}"
input_size = [1, 16, 16]
untrained = true
[data]
source = "digits"
validation_images = {validation}
calibration_images = 40
"""
FACTORY = Path(__file__).parents[1] / "space" / "gated.py"


def recipe_file(folder: Path, validation: int = 60) -> Path:
    file = folder / "recipe.toml"
    file.write_text(RECIPE.format(factory=f"{FACTORY}:net", validation=validation))
    return file


def test_each_type_is_asked_alone_and_gates_as_a_whole(tmp_path: Path) -> None:
    asked = ["sensitivity", str(recipe_file(tmp_path)), "--zeros", "0.9,0.5", "--images", "40"]
    told = CliRunner().invoke(app, asked, env={"COLUMNS": "200"})
    assert told.exit_code == 0, told.output
    assert "in the place of every squeeze-excitation gate" in told.stdout
    result = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert result["zeros"] == [0.5, 0.9]
    assert result["images"] == 40
    types = {row["name"]: row for row in result["types"]}
    assert set(types) == {"3x3", GATE, "linear"}
    assert 0 <= result["without_gates"] <= 1
    assert types["3x3"]["weights"] == 9 * 16 + 9 * 16 * 16
    assert types["3x3"]["macs"] == 8 * 8 * 9 * 16 + 4 * 4 * 9 * 16 * 16
    assert types[GATE]["layers"] == 2
    assert all(len(row["accuracy"]) == 2 for row in types.values())


class Twice(nn.Module):
    """A convolution of the user's own beside one of torch's, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Conv2d(1, 8, 5, padding=2), nn.Parameter(torch.randn(8, 8, 5, 5) / 9)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x).relu()
        for _ in range(2):
            x = nn.functional.conv2d(x, self.weight, padding=2).relu()
        return self.head(x.mean((2, 3)))


def test_a_row_is_of_all_that_it_counts(tmp_path: Path) -> None:
    """The convolution of the user's own is pruned as torch's is, and counted as often as it is called."""
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.format(factory=f"{__file__}:Twice", validation=60))
    result = edgeprune.sensitivity(parse_recipe(tomllib.loads(file.read_text())), zeros=(0.5,), images=20)
    row = next(row for row in result.types if row.name == "5x5")
    assert (row.layers, row.weights) == (2, 25 * 8 + 25 * 64)
    assert row.macs == 16 * 16 * (25 * 8 + 2 * 25 * 64)
    structure, weights = (of(Twice(), torch.zeros(1, 1, 16, 16)) for of in (find_structure, find_weights))
    assert [weight.name for weight in types_of_layers(structure, weights)["5x5"]] == ["first.weight", "weight"]


class Known(nn.Module):
    """Tells digits' brightness apart by one of two layers; the other one adds nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.idle, self.used = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x.flatten(1)) + 1e-6 * self.idle(x).mean((2, 3)).sum(1, keepdim=True)


def known() -> nn.Module:
    """A linear classifier of the digits, fitted in closed form."""
    module = Known()
    splits = splits_of(recipe_of(validation=60))
    images, labels = next(splits.train.batches(len(splits.train)))
    x, y = images.flatten(1).double(), nn.functional.one_hot(labels, 10).double()
    mean = x.mean(0)
    gram = (x - mean).T @ (x - mean) + 1e2 * torch.eye(256, dtype=torch.float64)
    weight = torch.linalg.solve(gram, (x - mean).T @ (y - y.mean(0)))
    module.used.weight.data.copy_(weight.T)
    module.used.bias.data.copy_(y.mean(0) - mean @ weight)
    return module


def splits_of(recipe: Recipe) -> Splits:
    preprocessing = Preprocessing(mean=(0.0,), std=(1.0,))
    spec = ModelSpec(source="known", input_size=(1, 16, 16), num_classes=10, preprocessing=preprocessing)
    return open_data(recipe.data, spec, seed=recipe.seed)


def recipe_of(validation: int) -> Recipe:
    return parse_recipe(
        {
            "model": {"factory": f"{Path(__file__)}:known", "input_size": (1, 16, 16), "mean": (0.0,), "std": (1.0,)},
            "data": {"source": "digits", "validation_images": validation, "calibration_images": 40},
        }
    )


def test_what_bears_zeros_and_what_does_not_are_told_apart() -> None:
    found = edgeprune.sensitivity(recipe_of(100), zeros=(0.5, 0.99), images=100)
    types = {row.name: row for row in found.types}
    assert found.accuracy > 0.8
    assert found.without_gates is None
    assert types["3x3"].accuracy == (found.accuracy, found.accuracy)
    assert types["3x3"].bears == 0.99
    assert types["linear"].accuracy[1] < found.accuracy - 0.2
    assert types["linear"].bears < 0.99


def test_refused(tmp_path: Path) -> None:
    with refused(UsageError, "zeros", 0, 1):
        edgeprune.sensitivity(recipe_of(20), zeros=(1.0,))
    with refused(DataError, "data.validation_images"):
        edgeprune.sensitivity(recipe_of(0))
    told = CliRunner().invoke(app, ["sensitivity", str(recipe_file(tmp_path)), "--zeros", "many"])
    assert isinstance(told.exception, UsageError)
