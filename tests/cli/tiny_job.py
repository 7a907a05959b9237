"""A job small enough to be done again and again: a four-convolution residual network on the embedded digits."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from facts import tells

from edgeprune.cli import main
from edgeprune.errors import EdgePruneError

COMMAND = str(Path(sys.executable).with_name("edgeprune"))
SHORTLY = (sys.executable, str(Path(__file__).parents[1] / "shortly.py"))  # the command, where it measures shortly
INPUT = (1, 16, 16)

FACTORY = """\
import torch.nn.functional as F
from torch import nn


class Tiny(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 2, 1, bias=False)
        self.bn0 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.widen = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.bn3(self.widen(x)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def tiny(width=32):
    return Tiny(width)
"""

# No gate here depends on how busy the machine is, nor on what a network of random weights has learnt in two epochs.
GATES = {"latency_tolerance": 9.0, "int8_agreement": False, "int8_accuracy_drop": False}
RECIPE: dict[str, dict[str, Any]] = {
    "model": {"factory": "tiny.py:tiny", "input_size": list(INPUT), "untrained": True},
    "data": {"source": "digits", "validation_images": 100, "calibration_images": 64},
    "prune": {"target": "0.6x", "tolerance": 0.9, "scoring_batches": 1},
    "tune": {"epochs": 2},
    "verify": {"images": 32},
    "verify.gates": GATES,
}


def recipe_text(**sections: Mapping[str, Any]) -> str:
    """RECIPE as TOML, with what is given put into its sections; `verify_gates` is [verify.gates]."""
    given = {name.replace("_", "."): values for name, values in sections.items()}
    tree = {name: {**RECIPE.get(name, {}), **given.get(name, {})} for name in {**RECIPE, **given}}
    lines = []
    for name, values in tree.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def write_job(folder: Path, **sections: Mapping[str, Any]) -> Path:
    """The factory and a recipe in a folder; returns the recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.py").write_text(FACTORY)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe_text(**sections))
    return recipe


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str
    error: BaseException | None = None  # of a command in this process

    @property
    def json(self) -> Any:
        """All of stdout as JSON: a single stray line there fails."""
        return json.loads(self.out)

    def fails(self, kind: type[EdgePruneError], *facts: object, code: int = 2) -> None:
        """Check that the command, in this process, was refused with an error of exactly this type, without a
        traceback, and that what its user reads has each fact in it (see `facts.tells`)."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        error = self.error
        assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {self.err}"
        lacking = [fact for fact in facts if not tells(error, fact)]
        assert not lacking, f"{lacking} is not told by: {self.err}"
        assert str(error) in self.err

    def refused(self, *words: str, code: int = 2) -> None:
        """Check that the command was refused in words, without a traceback."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        message = self.err.partition("error: ")[2]
        for word in words:
            assert word in message, f"{word!r} is not in: {self.err}"


@dataclass(frozen=True)
class Finished:
    """A whole run in every format, done once for all tests; they must leave its folder as it is."""

    recipe: Path
    run: Path
    done: Done
    leftovers: tuple[str, ...]


def edgeprune(
    *arguments: object,
    command: Sequence[str] = (COMMAND,),
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Done:
    """The command in a process of its own."""
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | (environment or {}),
        check=False,
        timeout=600,
        **options,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def inside(*arguments: object) -> Done:
    """The command in this process, by its own entry point: as `edgeprune`, without waiting for imports."""
    out, err, code, error = io.StringIO(), io.StringIO(), 0, None
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["edgeprune", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code, error = int(end.code or 0), end.__cause__ or end.__context__
    return Done(code, out.getvalue(), err.getvalue(), error)


def stamps(run: Path) -> dict[str, tuple[int, bytes]]:
    """Stage -> when its record was written, and its bytes: equal ones mean that the stage was not done again."""
    return {p.parent.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.glob("*/stage.json")}


def leftovers(run: Path) -> list[str]:
    """Half-written files and scratch folders in a run folder."""
    marks = (".part-", ".copy-", "tmp", ".partial")
    return [str(p.relative_to(run)) for p in run.rglob("*") if p.name.startswith(marks) or p.name.endswith(marks)]
