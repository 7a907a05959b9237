"""The lab itself: it boots, answers as a device does, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from machine import AdbServer, Image, Machine, built_image, free_port


def ssh(config: Path, command: str, host: str = "labarm") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-F", str(config), host, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_adb_shell_gives_exit_code_and_both_streams(arm: Machine, adb_server: AdbServer) -> None:
    done = adb_server.run("-s", arm.adb_serial, "shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert adb_server.run("-s", arm.adb_serial, "shell", "getprop ro.product.model").stdout == "Virtual ARM64\n"
    assert adb_server.run("-s", arm.adb_serial, "shell", "uname -m").stdout == "aarch64\n"


def test_bytes_pass_through_adb_and_ssh_unchanged(
    arm: Machine, adb_server: AdbServer, ssh_config: Path, tmp_path: Path
) -> None:
    sent = bytes(range(256)) * 4096 + b"\r\n\n\r\x04\x1a\x00"
    lanes = (["adb", "-s", arm.adb_serial, "shell", "-T", "cat"], ["ssh", "-F", str(ssh_config), "labarm", "cat"])
    for lane in lanes:
        back = subprocess.run(lane, env=adb_server.env(), input=sent, capture_output=True, timeout=60, check=True)
        assert back.stdout == sent, lane[0]


def test_ssh_knows_the_machine_and_nobody_else(arm: Machine, ssh_config: Path, tmp_path: Path) -> None:
    done = ssh(ssh_config, "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert stat.S_IMODE((ssh_config.parent / "key").stat().st_mode) == 0o600

    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    config = arm.write_ssh_files(tmp_path)
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{arm.ssh_port} {(tmp_path / 'other.pub').read_text()}")
    refused = ssh(config, "true")
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_plain_python_finds_the_runtimes(arm: Machine, ssh_config: Path) -> None:
    done = ssh(ssh_config, "python3 -c 'import numpy, ai_edge_litert.interpreter; print(numpy.__version__)'")
    assert done.returncode == 0, done.stderr
    pins = (Path(__file__).resolve().parents[2] / "constraints.txt").read_text().splitlines()
    assert f"numpy=={done.stdout.strip()}" in pins


def test_the_disk_can_be_filled(arm: Machine, adb_server: AdbServer) -> None:
    table = adb_server.run("-s", arm.adb_serial, "shell", "df -k /data/local/tmp").stdout.splitlines()
    assert 200_000 < int(table[-1].split()[3]) < 400_000


@pytest.mark.parametrize("persistent", [False, True])
def test_killed_and_restarted_it_is_back_on_the_same_ports(
    fresh_machine: Callable[..., Machine], adb_server: AdbServer, tmp_path: Path, persistent: bool
) -> None:
    machine = fresh_machine(persistent=persistent)
    ports = machine.ssh_port, machine.adb_port
    adb_server.connect(machine.adb_serial)
    config = machine.write_ssh_files(tmp_path / "ssh", host="other")
    assert adb_server.run("-s", machine.adb_serial, "shell", "echo here > /data/local/tmp/kept; sync").returncode == 0

    machine.kill()
    assert not machine.running
    assert ssh(config, "true", host="other").returncode == 255
    assert adb_server.run("-s", machine.adb_serial, "shell", "true").returncode != 0

    machine.restart()
    assert (machine.ssh_port, machine.adb_port) == ports
    adb_server.connect(machine.adb_serial)
    kept = adb_server.run("-s", machine.adb_serial, "shell", "cat /data/local/tmp/kept")
    assert kept.stdout == ("here\n" if persistent else "")
    assert ssh(config, "true", host="other").returncode == 0
    adb_server.disconnect(machine.adb_serial)


def test_frozen_it_does_not_answer_and_thawed_it_does(
    fresh_machine: Callable[..., Machine], adb_server: AdbServer
) -> None:
    machine = fresh_machine(cpu="cortex-a72")
    adb_server.connect(machine.adb_serial)
    machine.freeze()
    with pytest.raises(subprocess.TimeoutExpired):
        adb_server.run("-s", machine.adb_serial, "shell", "true", timeout=1.5)
    machine.thaw()
    assert adb_server.run("-s", machine.adb_serial, "shell", "true").returncode == 0
    adb_server.disconnect(machine.adb_serial)


def test_a_killed_test_process_leaves_no_machine(lab_image: Image, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from machine import AdbServer, Image, Machine\n"
        f"image = Image(Path({str(lab_image.folder)!r}))\n"
        f"machine = Machine(image, Path({str(tmp_path / 'machine')!r}), icount=False)\n"
        f"server = AdbServer(Path({str(tmp_path / 'adb')!r}))\n"
        "machine.start(); server.start(); server.connect(machine.adb_serial); machine.freeze()\n"
        "print(machine.pid, server.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        started = [psutil.Process(int(pid)) for pid in process.stdout.readline().split()]
        names = [child.name() for child in started]
        assert names == ["qemu-system-aarch64", "adb"]
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in started):
        assert time.monotonic() < until, names
        time.sleep(0.05)


def test_the_users_own_adb_server_is_not_touched(adb_server: AdbServer, arm: Machine) -> None:
    assert adb_server.port != 5037
    assert not 5554 <= arm.adb_port <= 5585
    env = adb_server.env()
    assert env["HOME"] != os.environ.get("HOME")
    devices = adb_server.run("devices").stdout.splitlines()[1:]
    assert f"{arm.adb_serial}\tdevice" in devices


def test_the_image_is_built_once(lab_image: Image) -> None:
    began = time.monotonic()
    assert built_image(lab_image.folder.parent) == lab_image
    assert time.monotonic() - began < 1


def test_free_ports_are_not_adbs_own() -> None:
    assert all(port > 5585 for port in (free_port() for _ in range(50)))
