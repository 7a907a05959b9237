"""`edgeprune sensitivity`: every type of layer by itself, on validation images, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import edgeprune
from edgeprune.cli import app
from edgeprune.data.open import open_data
from edgeprune.data.split import Splits
from edgeprune.errors import DataError, UsageError
from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.recipe import Recipe, parse_recipe
from edgeprune.sensitivities import GATE

RECIPE = """
[model]
factory = "{factory}"
input_size = [1, 16, 16]
[data]
source = "digits"
validation_images = {validation}
calibration_images = 40
"""
FACTORY = Path(__file__).parents[1] / "structure" / "gated.py"


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
    with pytest.raises(UsageError, match="between 0 and 1"):
        edgeprune.sensitivity(recipe_of(20), zeros=(1.0,))
    with pytest.raises(DataError, match="validation images"):
        edgeprune.sensitivity(recipe_of(0))
    told = CliRunner().invoke(app, ["sensitivity", str(recipe_file(tmp_path)), "--zeros", "many"])
    assert isinstance(told.exception, UsageError)
