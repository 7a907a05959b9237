"""docs/tasks.md: its recipes are loaded on data of the form that it says, its pieces of code are the detector's."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
import torch
from facts import refused
from pages import DOCS, section_of
from task_nets import SIDE, folders, masked, pictures, pixels

from edgeprune import installed
from edgeprune.errors import ModelError
from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe import TaskSection
from edgeprune.recipe_file import parse_recipe, read_recipe
from edgeprune.runs import lock
from edgeprune.stages.context import Context
from edgeprune.tasks.registry import task_of

EXAMPLES = DOCS.parent / "examples"
SECTIONS = {
    "classification": "Classification",
    "multi-label": "Multi-label",
    "segmentation": "Segmentation",
    "regression": "Regression",
    "embedding": "Embedding",
}
OWN = "A segmentation net of your own"


def snippet(section: str) -> dict[str, Any]:
    (text,) = re.findall(r"^```toml\n(.*?)^```", section_of("tasks.md", section), re.DOTALL | re.MULTILINE)
    return tomllib.loads(text)


def of_classes(folder: Path) -> None:
    folders(folder / "photos", ("cat", "dog"))


def of_labels(folder: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (36, 2))
    parts = {"train_images": pictures(24, 0), "train_labels": labels[:24]}
    np.savez(folder / "labelled.npz", **parts, test_images=pictures(12, 1), test_labels=labels[24:])


def of_masks(folder: Path) -> None:
    masked(folder / "shapes" / "train", 24)
    masked(folder / "shapes" / "test", 12)


def of_numbers(folder: Path) -> None:
    numbers = np.random.default_rng(0).random((36, 3, SIDE, SIDE), np.float32)
    parts = {"train_images": pictures(24, 0), "train_targets": numbers[:24]}
    np.savez(folder / "pictures.npz", **parts, test_images=pictures(12, 1), test_targets=numbers[24:])


def of_people(folder: Path) -> None:
    folders(folder / "people" / "train", ("anna", "ben"))
    folders(folder / "people" / "test", ("carl", "dora"))


@pytest.mark.parametrize(
    ("task", "net", "draw"),
    [
        ("classification", "vector", of_classes),
        ("multi-label", "vector", of_labels),
        ("segmentation", "pixels", of_masks),
        ("regression", "pixels", of_numbers),
        ("embedding", "vector", of_people),
    ],
)
def test_the_recipe_of_each_task_loads(task: str, net: str, draw: Callable[[Path], None], tmp_path: Path) -> None:
    draw(tmp_path)
    factory = f"{Path(__file__).with_name('task_nets.py')}:{net}"
    model = {"factory": factory, "input_size": [3, SIDE, SIDE], "untrained": True}
    found = loaded({"model": model, **snippet(SECTIONS[task])}, tmp_path)
    if task == "classification":
        assert 0 <= found["knows"]["share"] <= 1
    else:
        assert found["knows"]["metric"] == task_of(section_for(task)).metric.name


def test_the_recipe_of_your_own_net_loads(tmp_path: Path) -> None:
    """The guide's files, by the names that it gives them, the size aside."""
    masked(tmp_path / "my_data" / "train", 24)
    masked(tmp_path / "my_data" / "test", 12)
    source = Path(__file__).with_name("task_nets.py").read_text()
    (tmp_path / "my_net.py").write_text(f"{source}\n\ndef my_net():\n    return pixels()\n")
    torch.save(pixels().state_dict(), tmp_path / "my_net.pt")
    tree = snippet(OWN)
    tree["model"] |= {"input_size": [3, SIDE, SIDE], "untrained": True}
    assert loaded(tree, tmp_path)["knows"]["metric"] == "mean IoU"


def test_a_recipe_that_forgets_its_task_is_told_to_name_it(tmp_path: Path) -> None:
    """Not that there are two classes, images and masks."""
    of_masks(tmp_path)
    tree = snippet(SECTIONS["segmentation"])
    factory = f"{Path(__file__).with_name('task_nets.py')}:pixels"
    model = {"factory": factory, "input_size": [3, SIDE, SIDE], "untrained": True}
    with refused(ModelError, "segmentation", (1, 3, SIDE, SIDE)):
        loaded({"model": model, "data": tree["data"]}, tmp_path)


def test_every_installed_task_has_its_row_and_every_setting() -> None:
    names = {name for name in SECTIONS if installed.chosen(installed.TASKS, name, "task")}
    page = (DOCS / "tasks.md").read_text()
    assert names == set(re.findall(r"^\| \[`([a-z-]+)`\]", page, re.MULTILINE))
    for name, section in SECTIONS.items():
        task = task_of(TaskSection(name=name))
        told = re.findall(r"^\| `([a-z_]+)` \| ([^ ]+) \|", section_of("tasks.md", section), re.MULTILINE)
        fields = {key: str(field.default) for key, field in type(task).Settings.model_fields.items()}
        assert dict(told) == fields


def test_pieces_of_code_are_the_detectors() -> None:
    whole = (EXAMPLES / "detector" / "detector.py").read_text()
    page = (DOCS / "tasks.md").read_text().replace(section_of("tasks.md", "Models of several inputs"), "")
    pieces = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert pieces
    for piece in pieces:
        assert piece in whole
    recipe = tomllib.loads((EXAMPLES / "detector" / "recipe.toml").read_text())
    shown = snippet("A task of your own")
    assert shown["task"] == recipe["task"]
    assert shown["data"].items() <= recipe["data"].items()


def test_one_output_of_several_is_named_in_a_recipe() -> None:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "shapes"}, **snippet("Models of several outputs")}
    assert parse_recipe(tree).task.output == "out"


@pytest.mark.parametrize(
    "page", [DOCS / "tasks.md", *sorted(EXAMPLES.glob("*/README.md"))], ids=lambda p: p.parent.name
)
def test_the_files_that_commands_name_are_there(page: Path) -> None:
    """They are run whole in tests/pipeline."""
    named = re.findall(r"examples/\S+\.(?:py|toml)", page.read_text())
    assert named
    assert [name for name in named if not (DOCS.parent / name).is_file()] == []


def section_for(task: str) -> TaskSection:
    return TaskSection.model_validate(snippet(SECTIONS[task])["task"])


def loaded(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the first stage finds with a recipe."""
    (folder / "recipe.toml").write_text(tomlkit.dumps(tree))
    with lock(folder / "run"):
        context = Context(
            prepare_run(read_recipe(folder / "recipe.toml"), folder / "run", resume=False), Silent(), trust=True
        )
        do_stage(context, "load")
    record = context.run.record("load")
    assert record is not None
    return dict(record.result)
