"""A machine without coremltools: the other packages are there, that one really is not."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_job import Done, write_job

pytestmark = pytest.mark.slow

MAIN = "from edgeprune.cli import main; main()"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def without_coremltools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python whose packages are those of this one, all but one."""
    packages = tmp_path_factory.mktemp("packages")
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith("coremltools") and path.suffix != ".pth":
            (packages / path.name).symlink_to(path)
    return {"PYTHONPATH": f"{packages}:{ROOT}"}


@pytest.fixture
def edgeprune(without_coremltools: dict[str, str], tmp_path: Path) -> Callable[..., Done]:
    def run(*arguments: object) -> Done:
        done = subprocess.run(
            [sys._base_executable, "-c", MAIN, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=os.environ | without_coremltools,
            cwd=tmp_path,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def test_a_run_is_refused_before_the_work(edgeprune: Callable[..., Done], tmp_path: Path) -> None:
    done = edgeprune("run", write_job(tmp_path, export={"formats": ["tflite", "coreml"]}), "--out", tmp_path / "run")
    done.refused("exporting to coreml needs coremltools, not installed here", "pip install 'edgeprune[coreml]'")
    assert not (tmp_path / "run" / "load").exists()


def test_doctor_says_what_mends_it(edgeprune: Callable[..., Done]) -> None:
    rows = {row["what"]: row for row in edgeprune("doctor", "--json").json}
    assert rows["format coreml"] == {
        "what": "format coreml",
        "ok": False,
        "missing": ["coremltools"],
        "fix": "pip install 'edgeprune[coreml]'",
    }
    assert rows["format tflite"]["ok"]
    shown = edgeprune("doctor")
    assert shown.code == 0
    assert "missing coremltools" in " ".join(shown.out.split())
    assert "edgeprune[coreml]" in shown.out  # brackets are not taken for markup
