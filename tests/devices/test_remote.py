"""What a device behind a shell keeps to, tried with the shells of this machine (over adb and ssh: tests/lab)."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from facts import refused

from edgeprune.devices.base import LITTLE
from edgeprune.devices.child import TooLate
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.devices.remote import RemoteDevice
from edgeprune.devices.session import Session, SessionEnded
from edgeprune.devices.shell import Shell
from edgeprune.errors import DeviceError, DeviceLost
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_writer import write_operation

EVERY_BYTE = bytes(range(256)) * 3 + b"%d 100%\\045 '\\ \0\0008 -n\r\n\n"
SHELLS = [name for name in ("sh", "dash", "bash", "mksh", "busybox") if shutil.which(name)]


class Here(Shell):
    """A shell of this machine in the place of a device's."""

    def __init__(self, name: str) -> None:
        super().__init__(f"test:{name}")
        self._argv = [name, "sh"] if name == "busybox" else [name]
        self.asked: list[str] = []

    def argv(self, script: str) -> list[str]:
        return [*self._argv, "-c", script]

    def lost(self, step: str, said: str) -> DeviceError:
        return DeviceLost(f"{step}: the connection broke off ({said})", where=self.device_id)

    def ask(self, script: str, **settings: Any) -> Any:
        self.asked.append(script)
        return super().ask(script, **settings)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> Iterator[Here]:
    found = Here(request.param)
    yield found
    found.close()


@pytest.fixture
def remote(shell: Here, tmp_path: Path) -> RemoteDevice:
    return RemoteDevice(shell, kind="ssh", folder=str(tmp_path / "work"))


def youngest_child() -> psutil.Process:
    """What this process started last; toolkits of other tests may be there, too."""
    return max(psutil.Process().children(), key=lambda child: child.create_time())


@pytest.fixture
def session() -> Iterator[Session]:
    found = Session(["sh"])
    yield found
    found.kill()


def test_every_byte_arrives_in_the_text_of_a_script(remote: RemoteDevice, shell: Here, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(EVERY_BYTE)
    (tmp_path / "empty").write_bytes(b"")
    remote.push_all({"jobs/a": tmp_path / "x", "other/b": tmp_path / "x", "other/c": tmp_path / "empty"})
    assert Path(remote.path("jobs/a")).read_bytes() == EVERY_BYTE
    assert Path(remote.path("other/b")).read_bytes() == EVERY_BYTE
    assert Path(remote.path("other/c")).read_bytes() == b""
    assert list((tmp_path / "work" / "push").iterdir()) == []
    assert not any("tar" in script for script in shell.asked)


@pytest.mark.parametrize("content", [b"-", b"--", b"-_", b"-n 1", b"-- x", b"-\0001", b"--help", b"-v x 1"])
def test_content_that_begins_like_an_option(remote: RemoteDevice, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert Path(remote.push(tmp_path / "x", "jobs/a")).read_bytes() == content


@pytest.mark.parametrize("size", [100, LITTLE + 1, (1 << 20) + 1])
def test_content_that_others_changed_is_sent_again(remote: RemoteDevice, tmp_path: Path, size: int) -> None:
    local, there = tmp_path / "x", tmp_path / "work" / "models" / "x"
    local.write_bytes(b"a" * size)
    remote.push(local, "models/x")
    there.write_bytes(b"b" * size)  # of the same size
    remote.push(local, "models/x")
    assert there.read_bytes() == local.read_bytes()
    there.unlink()
    remote.push(local, "models/x")
    assert there.read_bytes() == local.read_bytes()
    shutil.rmtree(tmp_path / "work" / "seen")
    there.write_bytes(b"b" * size)
    remote.push(local, "models/x")
    assert there.read_bytes() == local.read_bytes()


def test_content_that_is_there_is_only_looked_at(remote: RemoteDevice, shell: Here, tmp_path: Path) -> None:
    local = tmp_path / "x"
    local.write_bytes(b"a" * (LITTLE + 1))
    remote.push(local, "models/x")
    time.sleep(1.1)  # some shells compare whole seconds only: what changed in the same one might have changed later
    remote.push(local, "models/x")
    shell.asked.clear()
    remote.push(local, "models/x")
    assert len(shell.asked) == 1
    assert "sum" not in shell.asked[0]


def test_what_was_known_is_compared_anew_after_a_loss(remote: RemoteDevice, shell: Here, tmp_path: Path) -> None:
    local, there = tmp_path / "x", tmp_path / "work" / "models" / "x"
    local.write_bytes(b"a" * (LITTLE + 1))
    remote.push(local, "models/x")
    times = there.stat()
    there.write_bytes(b"b" * (LITTLE + 1))  # as a disk may come back after a power failure
    os.utime(there, ns=(times.st_atime_ns, times.st_mtime_ns))
    held = youngest_child()
    held.kill()
    held.wait()
    remote.push(local, "models/x")
    assert there.read_bytes() == local.read_bytes()


def test_damage_in_little_files_is_seen(
    remote: RemoteDevice, shell: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"good")
    ask = shell.ask
    monkeypatch.setattr(shell, "ask", lambda script, **more: ask(script.replace("'good'", "'evil'"), **more))
    for name in ("jobs/x", "models/x"):
        with refused(DeviceLost, code=4):
            remote.push(tmp_path / "x", name)
        assert not Path(remote.path(name)).exists()
    assert list((tmp_path / "work" / "push").iterdir()) == []


def test_little_files_that_cannot_be_written_are_told(remote: RemoteDevice, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"good")
    remote.push(tmp_path / "x", "a")
    with refused(DeviceError, 1, code=4):
        remote.push(tmp_path / "x", "a/b")  # a is a file
    remote.push(tmp_path / "x", "c")  # and the session goes on


def test_a_jobs_files_go_by_the_beginning_of_their_names(remote: RemoteDevice, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    remote.push_all({f"jobs/{name}": tmp_path / "x" for name in ("one-a", "one-b", "two-a")})
    remote.remove("jobs/one*", wait=False)
    remote.run(["true"], timeout_s=10, on_line=print)  # comes after it
    assert [path.name for path in (tmp_path / "work" / "jobs").iterdir()] == ["two-a"]
    remote.remove("jobs/two*", wait=False)
    remote.close()
    assert [path.name for path in (tmp_path / "work" / "jobs").iterdir()] == []


def test_programs_are_noted_while_they_run(remote: RemoteDevice, tmp_path: Path) -> None:
    noted: list[str] = []
    seen = tmp_path / "seen"

    def look(line: str) -> None:
        remote.pull("x", tmp_path / "back")  # another client, while this one is busy
        noted.extend(path.read_text() for path in (tmp_path / "work" / "run").iterdir())
        noted.append(line)
        seen.touch()

    (tmp_path / "x").write_bytes(b"x")
    remote.push(tmp_path / "x", "x")
    done = remote.run(
        ["sh", "-c", f"echo $$; until [ -e {seen} ]; do sleep 0.05; done; echo no >&2; exit 7"],
        timeout_s=10,
        on_line=look,
    )
    assert (done.exit_code, done.stderr_tail) == (7, "no\n")
    assert noted[0].strip() == noted[1]
    assert [path.read_text() for path in (tmp_path / "work" / "run").iterdir()] == [""]
    assert (tmp_path / "back").read_bytes() == b"x"


def test_what_is_interrupted_ends_there(remote: RemoteDevice) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with remote.lease(), pytest.raises(KeyboardInterrupt):
        remote.run(["sh", "-c", "echo here; exec sleep 614"], timeout_s=60, on_line=interrupt)
    until = time.monotonic() + 10
    while any(
        "614" in process.info["cmdline"] for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]
    ):
        assert time.monotonic() < until
        time.sleep(0.05)


def said(session: Session, script: str, timeout_s: float = 20) -> tuple[int, list[str], str]:
    lines: list[str] = []
    done = session.run(script, on_line=lines.append, timeout_s=timeout_s)
    return done.exit_code, lines, done.stderr_tail


def test_a_session_tells_lines_codes_and_errors_of_each_script(session: Session) -> None:
    assert said(session, "echo one; echo; printf two") == (0, ["one", "", "two"], "")
    assert said(session, "echo; echo; false") == (1, ["", ""], "")
    assert said(session, "echo err >&2; (exit 5)") == (5, [], "err\n")
    assert said(session, "nonexistent-program")[0] == 127
    assert said(session, "read -r line; echo $?") == (0, ["1"], "")  # the next script is not its input
    word = "x" * 500_000
    assert said(session, f"echo {word}") == (0, [word], "")


def test_a_session_that_ends_says_why(session: Session) -> None:
    with pytest.raises(SessionEnded, match="goodbye"):
        said(session, "echo goodbye >&2; kill -KILL $$")
    assert not session.alive


def test_a_client_whose_outputs_have_ended_is_ended() -> None:
    session = Session(["sh", "-c", "exec >&- 2>&-; sleep 60"])
    with pytest.raises(SessionEnded):
        said(session, "true")
    assert not session.alive


def test_half_a_script_is_not_run(tmp_path: Path) -> None:
    session = Session(["sh", "-c", "head -c 60 | sh"])  # the connection breaks off in the middle of it
    with pytest.raises(SessionEnded):
        said(session, f"touch {tmp_path}/here; {'true; ' * 20} true")
    session.kill()
    assert list(tmp_path.iterdir()) == []


def test_a_session_in_which_nothing_happens_is_given_up(session: Session) -> None:
    asked: list[int] = []
    with pytest.raises(TooLate):
        session.run("sleep 30", on_line=print, timeout_s=1, silence_s=0.2, on_silence=lambda: asked.append(1))
    assert len(asked) >= 2


def test_the_end_of_a_session_waits_for_what_was_posted(tmp_path: Path) -> None:
    session = Session(["sh"])
    session.post(f"sleep 0.2; touch {tmp_path}/done")
    session.end()
    assert (tmp_path / "done").exists()


def test_a_session_dies_with_its_owner() -> None:
    session = Session(["sh"])
    client = youngest_child()
    del session
    client.wait(timeout=10)


def test_a_killed_client_is_noticed(session: Session) -> None:
    client = youngest_child()
    client.send_signal(signal.SIGKILL)
    with pytest.raises(SessionEnded):
        said(session, "true")


@pytest.mark.parametrize("count", [1, 6])
def test_a_job_runs_with_little_models_whether_few_or_many(shell: Here, tmp_path: Path, count: int) -> None:
    remote = RemoteDevice(shell, kind="ssh", folder=str(tmp_path / "work"), python=sys.executable)
    for number in range(count):  # six are more than go in the text of a script
        write_operation(OpSignature("linear", 32, 24 + number), tmp_path / f"{number}.tflite")
    cases = tuple(Case(str(number), tmp_path / f"{number}.tflite") for number in range(count))
    timing = Timing("sequential", 1, False, warm_up_runs=1, warm_up_s=0.0, min_runs=1, min_s=0.0, max_samples=1)
    result = run_job(remote, Job("litert", cases, timing=timing))
    assert [len(case.visits) for case in result.cases.values()] == [1] * count
    remote.close()
    assert list((tmp_path / "work" / "jobs").iterdir()) == []
