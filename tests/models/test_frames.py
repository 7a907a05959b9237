"""An error in the user's own code names the last of the user's own lines, whatever it called from there."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import ModelError
from edgeprune.models.frames import own_frame
from edgeprune.models.load import load

NET = """\
import json
import torch
from torch import nn
from parts import block


def in_torch():
    return nn.Sequential(
        nn.Conv2d(3, 7, 3, groups=2),
    )


def in_json():
    return json.loads("{")


def in_a_part():
    return block(3)


def leaves():
    raise SystemExit("no GPU")


class Net(nn.Module):
    def forward(self, x):
        return torch.zeros(3) + torch.zeros(4)
"""
PARTS = """\
def block(width):
    wide = width * 2
    raise LookupError(f"no block of {wide}")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "broken.py").write_text("import json\n\ndef make(:\n    pass\n")
    (tmp_path / "lazy.py").write_text("import json\n\njson.loads('{')\n")
    (tmp_path / "owners").mkdir()
    (tmp_path / "owners" / "__init__.py").write_text(NET.replace("from parts", "from owners.parts"))
    (tmp_path / "owners" / "parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("parts", "owners", "owners.parts"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("source", "kind", "line"),
    [
        ("net.py:in_torch", "ValueError", "net.py, line 9, in in_torch"),
        ("net.py:in_json", "JSONDecodeError", "net.py, line 14, in in_json"),
        ("net.py:in_a_part", "LookupError", "parts.py, line 3, in block"),
        ("net.py:leaves", "SystemExit", "net.py, line 22, in leaves"),
        ("net.py:Net", "RuntimeError", "net.py, line 27, in forward"),
        ("owners:in_a_part", "LookupError", str(Path("owners", "parts.py")) + ", line 3, in block"),
        ("broken.py:make", "SyntaxError", "broken.py, line 3"),
        ("lazy.py:make", "JSONDecodeError", "lazy.py, line 3, in <module>"),
    ],
)
def test_the_last_of_the_users_own_lines_is_named(folder: Path, source: str, kind: str, line: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(source, input_size=(3, 8, 8))
    first = caught.value.what.splitlines()[0]
    assert kind in first
    assert f"({line})" in first


def test_the_line_is_told_from_elsewhere_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "other").mkdir()
    monkeypatch.chdir(folder / "other")
    with pytest.raises(ModelError) as caught:
        load(f"{folder / 'net.py'}:in_json", input_size=(3, 8, 8))
    assert f"({folder / 'net.py'}, line 14, in in_json)" in caught.value.what


def test_where_none_of_the_users_code_ran_no_line_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        load("absent.py:make", input_size=(3, 8, 8))
    assert "line " not in caught.value.what


def raised_in(file: Path) -> BaseException:
    """An error out of code that was compiled as that file."""
    try:
        exec(compile("def work():\n    raise OSError('full')\nwork()", str(file), "exec"), {})
    except OSError as error:
        return error
    raise AssertionError("it raises")


def test_a_library_is_not_the_users_own_but_an_installed_package_of_the_users_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame above it is this test's, which counts as the user's. From a folder without the environment in it,
    as files below the working directory are told from there."""
    monkeypatch.chdir(tmp_path)
    installed = Path(sysconfig.get_path("purelib")) / "theirs" / "net.py"
    assert "test_frames.py" in own_frame(raised_in(installed), "net.py:make")
    assert own_frame(raised_in(installed), "theirs.net:make") == f"{installed}, line 2, in work"
