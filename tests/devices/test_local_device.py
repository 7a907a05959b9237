from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from facts import refused

from edgeprune.devices.discovery import find_devices, open_device
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DeviceError


def script(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


def test_a_file_that_is_pushed_and_pulled_is_the_same(device: LocalDevice, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(100_000))
    there = device.push(source, "models/a.bin")
    assert Path(there).read_bytes() == source.read_bytes()
    device.pull("models/a.bin", tmp_path / "back" / "a.bin")
    assert (tmp_path / "back" / "a.bin").read_bytes() == source.read_bytes()
    device.pull(there, tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == source.read_bytes()


def test_pushing_the_same_content_copies_nothing_and_new_content_replaces_it(
    device: LocalDevice, tmp_path: Path
) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"one")
    first = Path(device.push(source, "a.bin"))
    inode = first.stat().st_ino
    assert Path(device.push(source, "a.bin")).stat().st_ino == inode
    assert Path(device.push(source, "b.bin")).stat().st_ino == inode
    source.write_bytes(b"two")
    device.push(source, "a.bin")
    assert (first.read_bytes(), Path(device.push(source, "c.bin")).read_bytes()) == (b"two", b"two")
    left = [p.name for p in first.parent.iterdir() if p.name.startswith(".")]
    assert left == []


def test_content_damaged_on_the_device_is_copied_again(device: LocalDevice, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"good")
    there = Path(device.push(source, "a.bin"))
    there.chmod(0o644)
    there.write_bytes(b"evil")
    assert Path(device.push(source, "a.bin")).read_bytes() == b"good"


@pytest.mark.parametrize("remote", ["../escape", "/etc/passwd", "a/../../b", ""])
def test_a_path_outside_the_work_folder_is_refused(device: LocalDevice, tmp_path: Path, remote: str) -> None:
    source = tmp_path / "s"
    source.write_bytes(b"x")
    with refused(DeviceError, repr(remote), code=4):
        device.push(source, remote)


def test_pulling_what_is_not_there_names_it(device: LocalDevice, tmp_path: Path) -> None:
    with refused(DeviceError, "local", "nothing.bin", code=4):
        device.pull("nothing.bin", tmp_path / "x")


def test_lines_come_as_they_are_printed(device: LocalDevice, tmp_path: Path) -> None:
    text = (
        "import sys, time\nprint('first', sys.argv[1])\ntime.sleep(0.4)\nprint('second')\n"
        "sys.stderr.write('oops')\nsys.exit(5)"
    )
    arrived: list[tuple[str, float]] = []
    done = device.run(
        [sys.executable, "-u", device.push(script(tmp_path, text), "s.py"), "x"],
        timeout_s=30,
        on_line=lambda line: arrived.append((line, time.monotonic())),
    )
    assert [line for line, _ in arrived] == ["first x", "second"]
    assert arrived[1][1] - arrived[0][1] > 0.3  # not held back until the end
    assert (done.exit_code, done.stderr_tail) == (5, "oops")


GRANDCHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_the_time_limit_ends_the_whole_family(device: LocalDevice, tmp_path: Path) -> None:
    pids: list[int] = []
    with refused(DeviceError, "1 s", code=4):
        device.run(
            [sys.executable, device.push(script(tmp_path, GRANDCHILD), "s.py")],
            timeout_s=1,
            on_line=lambda x: pids.append(int(x)),
        )
    assert gone(pids[0])


def test_an_interrupt_ends_the_whole_family(device: LocalDevice, tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.run([sys.executable, device.push(script(tmp_path, GRANDCHILD), "s.py")], timeout_s=60, on_line=interrupt)
    assert gone(pids[0])


def test_a_device_in_use_is_refused_and_names_the_holder(device: LocalDevice, tmp_path: Path) -> None:
    other = LocalDevice(tmp_path / "device")
    with device.lease():
        with device.lease():  # its holder may take it again
            pass
        with refused(DeviceError, os.getpid(), code=4), other.lease():
            pass
    with other.lease():
        pass


def test_another_thread_does_not_share_a_lease(device: LocalDevice) -> None:
    told: list[DeviceError] = []

    def take() -> None:
        try:
            with device.lease():
                pass
        except DeviceError as error:
            told.append(error)

    with device.lease():
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert len(told) == 1


def test_a_lease_is_freed_when_its_holder_is_killed(device: LocalDevice, tmp_path: Path) -> None:
    holder = (
        "import sys, time\nfrom pathlib import Path\nfrom edgeprune.devices.local import LocalDevice\n"
        "with LocalDevice(Path(sys.argv[1])).lease():\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "device")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with refused(DeviceError, process.pid, code=4), device.lease():
            pass
        process.send_signal(signal.SIGKILL)
        with device.lease(wait_s=10):
            pass
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_local_machine_is_found_and_opened() -> None:
    (facts,) = find_devices()
    assert facts.id == "local"
    assert facts.cores >= 1
    assert facts.memory_bytes > 1 << 28
    assert "litert" in facts.runtimes
    assert facts.fingerprint == find_devices()[0].fingerprint


@pytest.mark.parametrize(
    ("id", "words"),
    [("lokal", "did you mean `local`"), ("x:y", "local"), ("apple:none", "devices add mac")],
)
def test_other_devices_are_refused_with_a_hint(id: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        open_device(id)
