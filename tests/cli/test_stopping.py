"""What a command leaves when a signal ends it, what its stdout holds, and what it says of memory and full disks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tiny_job import COMMAND, FACTORY, Done, inside

from edgeprune.scratch import place_of, scratch_folder, sweep_scratch

HANGING = """
import signal, subprocess, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is off where the tests run under nohup
from edgeprune.cli import main
from edgeprune.cli import run
def hang(*_, **__):
    from edgeprune.artifacts.child import Child
    from edgeprune.devices.child import run_lines
    from edgeprune.runs import lock
    from edgeprune.scratch import scratch_folder
    from pathlib import Path
    with lock(Path("run")), scratch_folder("x"), Child("onnx") as child:
        print(child._process.pid, flush=True)
        run_lines([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(77)"], timeout_s=60,
                  on_line=lambda line: print("hangs", flush=True))
import edgeprune.recipe_file
edgeprune.recipe_file.read_recipe = hang
sys.argv = ["edgeprune", "run", "x.toml"]
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_all_and_leaves_nothing(tmp_path: Path, number: int, code: int) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    (tmp_path / "work").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HANGING],
        cwd=tmp_path / "work",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert process.stdout.readline() == "hangs\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "--resume" in said
    assert "Traceback" not in said
    assert not Path(f"/proc/{child}").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_folders_of_the_killed_go_and_those_of_the_living_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = (
        "from edgeprune.scratch import make_scratch; import time; print(make_scratch('x'), flush=True); time.sleep(60)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (tmp_path / "edgeprune-of-somebody").mkdir()
        with scratch_folder("mine") as mine:
            assert sweep_scratch() == 0
            other.kill()
            other.wait()
            assert sweep_scratch() == 1
            assert mine.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["edgeprune-of-somebody"]


LOUD = """
import os
print("at import")
os.system("echo from a program")
os.write(1, b"from C\\n")
"""


def test_what_a_users_code_prints_is_not_among_the_json(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(LOUD + FACTORY.replace("return Tiny(width)", 'print("made"); return Tiny(width)'))
    done = subprocess.run(
        [COMMAND, "show", "units", "loud.py:tiny", "--input-size", "1,16,16", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    for words in ("at import", "from a program", "from C", "made"):
        assert words in done.stderr
    here = inside("show", "units", f"{tmp_path / 'loud.py'}:tiny", "--input-size", "1,16,16", "--json")
    assert isinstance(here, Done)
    assert here.json


def test_a_full_disk_is_named_by_the_folder_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"/dev/shm": 0, str(tmp_path): 10**9}
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    monkeypatch.setattr("edgeprune.scratch._free_bytes", lambda folder: free[str(folder)])
    assert place_of(OSError(errno.ENOSPC, "No space left on device"), tmp_path) == "/dev/shm"
    assert place_of(OSError(errno.ENOSPC, "No space left on device", "/x/y"), tmp_path) == "/x/y"
    free["/dev/shm"] = 10**10
    assert place_of(OSError(errno.ENOSPC, "No space left on device"), tmp_path) == str(tmp_path)


def test_a_limit_of_memory_is_named(tmp_path: Path) -> None:
    """In a process of its own: a limit cannot be taken back."""
    program = f"""
import resource
from pathlib import Path
import edgeprune.artifacts.child as children
import edgeprune.artifacts.jobs as jobs
import edgeprune.errors as errors
resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
try:
    with children.Child("pte") as child:
        list(child.run(jobs.ProbeJob(exporter="pte", signatures=(), folder=Path({str(tmp_path)!r}))))
except errors.ConversionError as error:
    print(error.what)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert "ulimit -v" in done.stdout, done.stdout + done.stderr
    assert "700 MB" in done.stdout
