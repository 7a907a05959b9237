"""Help that is whole at 80 columns, and what a shell completes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from tiny_job import COMMAND, edgeprune, inside

from edgeprune.cli import app


def groups(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The commands that have commands of their own."""
    commands = getattr(command, "commands", None)
    if commands is not None:
        yield path
        for name, inner in commands.items():
            yield from groups(inner, (*path, name))


GROUPS = list(groups(typer.main.get_command(app)))


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_no_summary_is_cut(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = inside(*path, "--help").out
    summaries = shown.partition("Commands:\n")[2].splitlines()
    assert len(summaries) > 1
    for line in summaries:
        assert line.rstrip().endswith("."), line
        assert not line.rstrip().endswith(".."), line


def test_all_groups_were_looked_at() -> None:
    assert {(), ("show",), ("table",), ("devices",), ("devices", "add")} == set(GROUPS)


def completed(line: str, folder: Path, **environment: str) -> list[str]:
    """What bash offers for the last word of a line."""
    done = subprocess.run(
        [COMMAND],
        env=os.environ
        | {"_EDGEPRUNE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def test_formats_devices_and_run_folders_are_completed(tmp_path: Path) -> None:
    for name in ("runs/first/run.json", "runs/second/run.json", "runs/notes/todo.txt", "photos/cat/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "edgeprune").mkdir()
    (tmp_path / "edgeprune" / "devices.toml").write_text("[[device]]\nname = 'shelf-3'\nhost = 'pi@shelf'\n")
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert completed("edgeprune export runs/first --format t", tmp_path) == ["tflite"]
    assert {"coreml", "onnx", "pte", "tflite"} <= set(completed("edgeprune export runs/first --format ", tmp_path))
    assert completed("edgeprune bench m.tflite --device ", tmp_path, **home) == ["local", "ssh:shelf-3"]
    assert completed("edgeprune devices clean ss", tmp_path, **home) == ["ssh:shelf-3"]
    assert completed("edgeprune tune runs/", tmp_path) == ["runs/first", "runs/second"]
    assert completed("edgeprune show run ru", tmp_path) == ["runs/"]
    assert completed("edgeprune sens", tmp_path) == ["sensitivity"]
    (tmp_path / "edgeprune" / "devices.toml").write_text("no toml")
    assert completed("edgeprune bench m.tflite --device ", tmp_path, **home) == []


def test_a_shell_is_told_how() -> None:
    """Which shell it is, the command sees by the process that began it: the tests may have none above them."""
    shown = edgeprune("-c", f"'{COMMAND}' --show-completion; exit $?", command=("bash",))
    assert shown.code == 0, shown.err
    assert "complete -o default -F" in shown.out


def test_every_public_name_is_there() -> None:
    import edgeprune as library

    for name in library.__all__:
        assert getattr(library, name).__name__ == name
