"""stdout and stderr that are closed, full, of another character set, or read by nobody: the exit code is never that of
a failed gate, and nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_job import COMMAND

from edgeprune.errors import EdgePruneError

LOOK = ("table", "show")
READER_GONE = 141

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and /dev")


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of bash, in which $E is the command."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=os.environ | {"E": COMMAND, "XDG_CACHE_HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    "words",
    ["table show", "table show --json", "--help", "devices --json", "devices", "show nope"],
)
def test_a_reader_that_is_gone_is_no_failed_gate(tmp_path: Path, words: str) -> None:
    """It was exit code 1, or a model that ended the program."""
    done = shell(f"$E {words} 2>&1 | true; echo ${{PIPESTATUS[0]}}", tmp_path)
    assert done.stdout.strip() in (str(READER_GONE), "2"), done.stdout  # 2: what was wrong came before
    assert (done.stdout.strip() == "2") == (words == "show nope")
    assert done.stderr == ""


@pytest.mark.parametrize(("words", "code"), [("table show --json", 0), ("show nope", 2), ("show nope --json", 2)])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(tmp_path: Path, words: str, code: int, closed: str) -> None:
    done = shell(f"$E {words} {closed}", tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_opened_does_not_become_stdout(tmp_path: Path) -> None:
    """The first file that is opened takes the number of a closed stream."""
    line = "import sys; from edgeprune.cli.streams import make_usable; make_usable(); f = open('x', 'w'); print('a')"
    done = shell(f'{sys.executable} -c "{line}" >&-', tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x").read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", ["table show", "table show --json", "devices"])
def test_an_answer_that_cannot_be_written_is_named_as_that(tmp_path: Path, words: str) -> None:
    done = shell(f"$E {words} > /dev/full", tmp_path)
    assert done.returncode == EdgePruneError.exit_code
    assert "stdout: the answer cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_error_keeps_its_code_where_its_json_cannot_be_written(tmp_path: Path) -> None:
    done = shell("$E show nope --json > /dev/full", tmp_path)
    assert done.returncode == 2
    assert "no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_letters_that_stdout_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(
        '{"version": 1, "base": "h\u00f6he\u2192", "base_parameters": 1, "made_with": {}, "edits": []}'
    )
    done = shell("$E show plan.json", tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "plan for h?he?" in done.stdout


def test_usage_is_told_in_json_alone(tmp_path: Path) -> None:
    done = shell("$E show nope --json", tmp_path)
    assert json.loads(done.stdout)["error"]["exit_code"] == 2
