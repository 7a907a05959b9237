"""What must be at hand at once imports nothing heavy; what runs on a device imports nothing of ours."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_job import edgeprune

HEAVY = ("torch", "timm", "torchvision", "coremltools", "executorch", "litert_torch", "ai_edge_litert", "onnxruntime")
LIGHT = [
    *("edgeprune", "edgeprune.cli", "edgeprune.recipe", "edgeprune.recipe_file", "edgeprune.runs", "edgeprune.errors"),
    *("edgeprune.devices.discovery", "edgeprune.devices.jobs", "edgeprune.artifacts.plugins"),
    *("edgeprune.latency.table", "edgeprune.latency.cost", "edgeprune.latency.protocol", "device_profiles"),
    "edgeprune.stages.stage",
    "apps.runner.python_runner",
]
LIST = f"import sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"


def imported(statement: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}; {LIST}"], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


@pytest.mark.parametrize("module", LIGHT)
def test_importing_is_light(module: str) -> None:
    assert imported(f"import {module}") == []


def test_the_check_sees_what_is_imported() -> None:
    assert "torch" in imported("import edgeprune.space.units, edgeprune.space.cut")


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("devices", "--json"), ("run", "none.toml")])
def test_commands_that_answer_at_once(arguments: tuple[str, ...]) -> None:
    start = f"import atexit, sys; sys.argv = ['edgeprune', *{arguments!r}]"
    listed = f"atexit.register(lambda: print('HEAVY', *(n for n in {HEAVY!r} if n in sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{start}; {listed}; from edgeprune.cli import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if "none.toml" in arguments else 0), done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY"


def test_help_names_every_command() -> None:
    done = edgeprune("--help")
    assert done.code == 0
    names = ("run", "prune", "tune", "merge", "quantize", "export", "verify", "bench", "devices", "doctor", "show")
    for command in (*names, "report"):
        assert f" {command} " in done.out
    for command in ["run", "prune", "tune"]:
        assert "--json" in edgeprune(command, "--help").out


def test_runners_import_nothing_of_ours() -> None:
    files = sorted((Path(__file__).parents[2] / "apps").rglob("*.py"))
    assert any(file.name == "python_runner.py" for file in files)
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                assert node.level == 0, file
            for name in names:
                assert name.partition(".")[0] not in ("edgeprune", "exporters", "device_profiles"), f"{file}: {name}"
