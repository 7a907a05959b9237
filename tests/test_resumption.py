"""What an interrupted job goes on with: kept by what it depends on, whole or not at all, damage told."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import BaseModel, TypeAdapter

from edgeprune.errors import EdgePruneError, RunError
from edgeprune.resume import Resumption


class Tried(BaseModel):
    zeros: float


class Judged(NamedTuple):
    key: str
    loss: float


def test_a_record_is_read_back_by_the_same_work_alone(tmp_path: Path) -> None:
    kept = Resumption(tmp_path, "settings", "weights")
    assert kept.read("tried.json", Tried) is None
    assert not kept.folder.exists()
    kept.write("tried.json", Tried(zeros=0.25))
    kept.write("tried.json", Tried(zeros=0.5))
    assert Resumption(tmp_path, "settings", "weights").read("tried.json", Tried) == Tried(zeros=0.5)
    assert Resumption(tmp_path, "settings", "others").read("tried.json", Tried) is None
    assert [path.name for path in kept.folder.iterdir()] == ["tried.json"]


def test_records_of_any_shape(tmp_path: Path) -> None:
    kind = TypeAdapter(tuple[Tried, ...])
    Resumption(tmp_path).write("all.json", (Tried(zeros=0.1), Tried(zeros=0.2)), kind)
    assert Resumption(tmp_path).read("all.json", kind) == (Tried(zeros=0.1), Tried(zeros=0.2))


def test_lines_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    told = [Judged("a", 0.1 + 0.2), Judged("b", math.inf), Judged("c", -5e-324), Judged("d\n", 1e300)]
    lines = Resumption(tmp_path, "x").lines("judged.jsonl", Judged)
    for line in told:
        lines.add(line)
    assert lines.known == told
    assert Resumption(tmp_path, "x").lines("judged.jsonl", Judged).known == told


def test_a_line_that_a_kill_left_half_written_goes(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from tests_judged import Judged
from edgeprune.resume import Resumption
lines = Resumption(Path({str(tmp_path)!r})).lines("judged.jsonl", Judged)
lines.add(Judged("whole", 1.0))
with open({str(tmp_path / "judged.jsonl")!r}, "a") as half:
    half.write('["half')
    half.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    code = "from typing import NamedTuple\nclass Judged(NamedTuple):\n    key: str\n    loss: float\n"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tests_judged.py").write_text(code)
    path = os.pathsep.join(filter(None, (str(tmp_path / "code"), os.environ.get("PYTHONPATH"))))
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    lines = Resumption(tmp_path).lines("judged.jsonl", Judged)
    assert lines.known == [Judged("whole", 1.0)]
    lines.add(Judged("next", 2.0))
    assert Resumption(tmp_path).lines("judged.jsonl", Judged).known == [Judged("whole", 1.0), Judged("next", 2.0)]


@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b'{"zeros": "many"}', b"[" * 5000])
def test_damage_is_told_with_the_file_and_what_to_do(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "tried.json").write_bytes(damage)
    (tmp_path / "judged.jsonl").write_bytes(b'["a", 1.0]\n' + damage + b'\n["b", 2.0]\n')
    for name, read in (
        ("tried.json", lambda: Resumption(tmp_path).read("tried.json", Tried)),
        ("judged.jsonl", lambda: Resumption(tmp_path).lines("judged.jsonl", Judged)),
    ):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(RunError) as caught:
            read()
        assert caught.value.where == str(tmp_path / name)
        assert "delete it" in str(caught.value.hint)
        assert (tmp_path / name).read_bytes() == before


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgePruneError):
        Resumption(tmp_path / "file").write("tried.json", Tried(zeros=1))
    with pytest.raises(OSError, match="file"):
        Resumption(tmp_path / "file").lines("judged.jsonl", Judged).add(Judged("a", 1.0))
