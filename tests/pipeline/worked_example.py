"""A folder of examples/, copied and run whole as its README says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import edgeprune
from edgeprune.progress import Progress
from edgeprune.verify.verdict import Check

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_example(name: str, folder: Path, *, progress: Progress | None = None) -> edgeprune.Outcome:
    """Make its model and data with its own script, then do the whole job of its recipe."""
    shutil.copytree(EXAMPLES / name, folder, dirs_exist_ok=True)
    (script,) = folder.glob("make_*.py")
    subprocess.run([sys.executable, script], check=True, stdout=subprocess.DEVNULL)
    return edgeprune.run(folder / "recipe.toml", folder / "run", progress=progress)


def checks_of(outcome: edgeprune.Outcome) -> dict[str, dict[str, Check]]:
    """Each file's checks by name."""
    return {file.file: {check.name: check for check in file.checks} for file in outcome.verdict.files}
