"""The documents say what is there: every recipe key, every command, every room."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from edgeprune.cli import app
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import read_recipe

ROOT = Path(__file__).resolve().parents[2]


def keys_of(section: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += keys_of(kind, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def test_every_recipe_key_is_documented_and_no_other() -> None:
    table = (ROOT / "docs" / "recipe.md").read_text()
    documented = {
        key
        for row in table.splitlines()
        if row.startswith("| `")
        for key in re.findall(r"`([a-z0-9_.]+)`", row.split("|")[1])
    }
    assert documented == set(keys_of(Recipe))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.toml")), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_example_recipes_are_valid(path: Path) -> None:
    read_recipe(path)


def documented_commands() -> list[str]:
    lines = [
        line
        for doc in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md"))
        for line in doc.read_text().splitlines()
    ]
    return sorted({line.partition("#")[0].strip() for line in lines if line.startswith("edgeprune ")})


@pytest.mark.parametrize("command", documented_commands())
def test_documented_commands_exist_with_their_options(command: str) -> None:
    """Each command line of the documents names a command and options that are there (they are run in tests/cli)."""
    _, name, *rest = command.split()
    path = [name]
    if name in ("show", "table", "devices") and rest:  # commands with commands of their own
        path += rest[:2] if rest[0] == "add" else rest[:1]
    shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0, shown.output
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown.output


def test_rooms_of_the_architecture_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    assert rooms
    for room in rooms:
        folder = "" if room.startswith(("exporters", "device_profiles", "apps")) else "edgeprune/"
        assert (ROOT / folder / room).exists(), room


def test_the_files_that_documents_name_are_there() -> None:
    """Rooms were renamed, and pages went on telling of files that were gone."""
    missing = []
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for name in re.findall(r"`([A-Za-z0-9_./-]+/[A-Za-z0-9_-]+\.py)`", page.read_text()):
            if not any((folder / name).exists() for folder in (ROOT, ROOT / "edgeprune")):
                missing.append(f"{page.relative_to(ROOT)}: {name}")
    assert missing == []
