"""What goes wrong with real devices, done to the real adbd, sshd and machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import refused
from lanes import open_lane
from machine import AdbServer, Machine

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices import bundle, jobs, shell
from edgeprune.devices.inference import run_inference
from edgeprune.devices.jobs import Case, Job, JobBroken, Timing, run_job
from edgeprune.devices.remote import RemoteDevice
from edgeprune.errors import DeviceError, DeviceLost
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.bench import Bench
from edgeprune.latency.probes import time_probes
from edgeprune.latency.table import LatencyTable
from edgeprune.latency.tflite_writer import write_operation

RELU = OpSignature("activation", 3, 3, 4, 4, function="relu")
TIMING = Timing("interleaved", 6, True, warm_up_runs=1, warm_up_s=0.0, min_runs=4, min_s=0.2, max_samples=16)

# What has to do with one lane only, or is the same code for both, is not tried through both.
THROUGH_ADB = pytest.mark.parametrize("lab", ["adb"], indirect=True)
THROUGH_SSH = pytest.mark.parametrize("lab", ["ssh"], indirect=True)


class Lab:
    """A machine to break, reached through one lane."""

    def __init__(self, machine: Machine, server: AdbServer, lane: str, folder: Path) -> None:
        self.machine, self.server, self.lane = machine, server, lane
        self.config = machine.write_ssh_files(folder)
        self.over = threading.Event()

    def open(self) -> RemoteDevice:
        return open_lane(self.lane, self.machine, self.config)

    def later(self, *steps: Callable[[], Any]) -> threading.Event:
        """Do these on a thread of their own, which lives as long as the lab: a machine dies with the thread that
        started it. The event is set when they are done."""
        done = threading.Event()

        def work() -> None:
            for step in steps:
                step()
            done.set()
            self.over.wait()

        threading.Thread(target=work).start()
        return done


@pytest.fixture(params=["adb", "ssh"])
def lab(
    request: pytest.FixtureRequest,
    fresh_machine: Callable[..., Machine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Lab]:
    machine = fresh_machine(persistent=True)
    with AdbServer(tmp_path / "adb") as server:
        for name, value in server.env().items():
            if name.startswith(("ADB_", "ANDROID_")):
                monkeypatch.setenv(name, value)
        for name in ("ADB_USB", "ADB_EMU", "ADB_MDNS"):
            monkeypatch.setenv(name, "0")
        found = Lab(machine, server, request.param, tmp_path / "ssh")
        yield found
        found.over.set()
        server.run("kill-server")


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    path = tmp_path / "relu.tflite"
    write_operation(RELU, path)
    return path


def on(event_kind: str, act: Callable[[], Any], *, count: int = 1) -> Callable[[dict[str, Any]], None]:
    """Acts once, at the so-many-th event of a kind."""
    seen = 0

    def watch(event: dict[str, Any]) -> None:
        nonlocal seen
        if event["event"] == event_kind:
            seen += 1
            if seen == count:
                act()

    return watch


def test_the_cable_is_pulled_during_a_push(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(1 << 20) * 60)
    device = lab.open()
    pulled: list[threading.Event] = []
    ask = device._shell.ask

    def watched(script: str, **settings: Any) -> Any:
        if "cat >>" in script:
            pulled.append(lab.later(lambda: time.sleep(0.5), lab.machine.kill))
        return ask(script, **settings)

    device._shell.ask = watched  # type: ignore[method-assign]
    with refused(DeviceLost, device.id, "large", code=4):
        device.push(path, "large")
    assert pulled[0].wait(60)
    device._shell.ask = ask  # type: ignore[method-assign]
    lab.machine.restart()
    device.reconnect(wait_s=60)
    device.push(path, "large")
    lines: list[str] = []
    device.run(["sha256sum", device.path("large")], timeout_s=60, on_line=lines.append)
    assert (
        lines[0].split()[0]
        == subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]
    )


def test_the_cable_is_pulled_during_a_pull(lab: Lab, tmp_path: Path) -> None:
    device = lab.open()
    device.run(["dd", "if=/dev/zero", f"of={device.path('large')}", "bs=1M", "count=200"], timeout_s=90, on_line=print)
    (tmp_path / "back").write_bytes(b"what was there")
    pulled = lab.later(lambda: time.sleep(0.5), lab.machine.kill)
    with refused(DeviceLost, device.id, "large", code=4):
        device.pull("large", tmp_path / "back")
    assert pulled.wait(60)
    assert (tmp_path / "back").read_bytes() == b"what was there"
    assert not list(tmp_path.glob(".back*"))


def test_a_reboot_in_the_middle_of_a_job_costs_only_time(lab: Lab, relu: Path) -> None:
    device = lab.open()
    steps: list[threading.Event] = []
    reboot = on("samples", lambda: (lab.machine.kill(), steps.append(lab.later(lab.machine.restart))), count=3)
    cases = (Case("a", relu), Case("b", relu))
    result = run_job(device, Job("litert", cases, timing=TIMING), on_event=reboot)
    assert steps[0].wait(60)
    for case in result.cases.values():
        assert [visit.round for visit in case.visits] == list(range(6))  # none lost, none counted twice
    assert result.processes == 2


@THROUGH_ADB
def test_a_device_that_lost_its_files_gets_them_again(lab: Lab, relu: Path) -> None:
    device = lab.open()
    run_job(device, Job("litert", (Case("a", relu),), timing=TIMING))
    device.run(["rm", "-rf", device.folder], timeout_s=30, on_line=print)
    assert len(run_job(device, Job("litert", (Case("a", relu),), timing=TIMING)).cases["a"].visits) == 6


@THROUGH_ADB
def test_what_was_finished_is_told_when_the_device_does_not_come_back(
    lab: Lab, relu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RECONNECT_WAIT_S", 1.0)
    device = lab.open()
    gone = on("samples", lab.machine.kill, count=4)
    with pytest.raises(JobBroken) as lost:
        run_job(device, Job("litert", (Case("a", relu), Case("b", relu)), timing=TIMING), on_event=gone)
    assert [len(case.visits) for case in lost.value.result.cases.values()] == [2, 2]
    assert str(lost.value).startswith(device.id)


@THROUGH_ADB
def test_probes_that_were_finished_are_kept(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeprune.space.units import Layer, Width

    monkeypatch.setattr(jobs, "RECONNECT_WAIT_S", 1.0)
    table = LatencyTable(tmp_path / "table.sqlite")
    bench = Bench(lab.open(), table, "litert", MeasuringExporter("litert"), 1, "quick", 8, 8)
    layers = [
        Layer(f"layer{i}", OpSignature("conv2d", 8, 8 * i, 8, 8, (3, 3)), Width(8), Width(8 * i)) for i in range(1, 7)
    ]
    take = jobs._Progress._take
    seen = on("samples", lab.machine.kill, count=17)  # two rounds of seven cases, and three of the third

    def watched(self: Any, line: str) -> None:
        import json

        take(self, line)
        seen(json.loads(line))

    monkeypatch.setattr(jobs._Progress, "_take", watched)
    with pytest.raises(JobBroken):
        time_probes(bench, layers, {})
    assert sum(line.operations for line in _summary(table)) >= 2


def _summary(table: LatencyTable) -> Any:
    from edgeprune.latency.exchange import summarize

    return summarize(table)


@THROUGH_ADB
def test_the_adb_server_is_killed_in_the_middle(lab: Lab, relu: Path) -> None:
    device = lab.open()
    killed = on("samples", lab.server.kill, count=2)
    result = run_job(device, Job("litert", (Case("a", relu),), timing=TIMING), on_event=killed)
    assert [visit.round for visit in result.cases["a"].visits] == list(range(6))


@THROUGH_ADB
def test_an_adb_server_that_was_restarted_between_two_jobs_is_no_loss(lab: Lab, relu: Path) -> None:
    device = lab.open()
    job = Job("litert", (Case("a", relu),), timing=replace(TIMING, rounds=1))
    run_job(device, job)
    lab.server.kill()
    lab.server.start()
    lab.server.connect(lab.machine.adb_serial)
    assert run_job(device, job).processes == 1


def test_a_device_that_hangs_is_noticed(lab: Lab, relu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "SILENCE_S", 2.0)
    monkeypatch.setattr(shell, "PING_S", 2.0)
    monkeypatch.setattr(shell, "SHORT_S", 5.0)
    device = lab.open()
    steps: list[threading.Event] = []
    hang = on(
        "samples",
        lambda: (lab.machine.freeze(), steps.append(lab.later(lambda: time.sleep(8), lab.machine.thaw))),
        count=2,
    )
    result = run_job(device, Job("litert", (Case("a", relu),), timing=TIMING), on_event=hang)
    assert steps[0].wait(60)
    assert [visit.round for visit in result.cases["a"].visits] == list(range(6))
    lines: list[str] = []
    device.run(["ps", "-eo", "args"], timeout_s=30, on_line=lines.append)
    assert not [line for line in lines if "job-1.json" in line]  # the first runner was ended


@THROUGH_ADB
def test_a_full_disk_is_told_and_left_as_it_was(lab: Lab, relu: Path, tmp_path: Path) -> None:
    device = lab.open()
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * 20)
    fill = "for n in 1 2 3; do dd if=/dev/zero of=/data/local/tmp/filler$n bs=4k; sync; done"  # until nothing fits
    assert device.run(["sh", "-c", fill], timeout_s=120, on_line=print).exit_code == 0
    with refused(DeviceError, "21.0 MB", code=4):
        device.push(tmp_path / "large", "large")
    many = {}
    for number in range(12):
        path = tmp_path / f"{number}"
        path.write_bytes(os.urandom(1 << 20))
        many[f"m/{number}"] = path
    device.free_bytes = lambda: 2**40  # type: ignore[method-assign]  # somebody else fills it meanwhile
    with refused(DeviceError, "disk", code=4):
        device.push_all(many)
    lines: list[str] = []
    device.run(["find", device.path("push"), "-type", "f"], timeout_s=30, on_line=lines.append)
    assert lines == []
    device.run(["sh", "-c", "rm /data/local/tmp/filler*"], timeout_s=30, on_line=print)
    device.push_all(many)


@THROUGH_ADB
def test_a_model_that_crashes_the_runner_costs_only_itself(lab: Lab, relu: Path, tmp_path: Path) -> None:
    device = lab.open()
    other = tmp_path / "crash.tflite"
    write_operation(replace(RELU, in_channels=5, out_channels=5), other)

    def crash(event: dict[str, Any]) -> None:
        if event["event"] == "begin" and event["case"] == "crash":
            device._shell.ask("kill -SEGV $(cat run/* $(pwd)/nothing 2>/dev/null)", step="crashing")

    folder = device.folder
    ask = device._shell.ask
    device._shell.ask = lambda script, **k: ask(  # type: ignore[method-assign]
        f"cd {folder}; {script}" if "SEGV" in script else script, **k
    )
    slow = replace(TIMING, rounds=2, min_s=1.0)
    cases = (Case("first", relu), Case("crash", other), Case("last", relu))
    result = run_job(device, Job("litert", cases, timing=slow), on_event=crash)
    assert "SIGSEGV" in (result.cases["crash"].failure or "")
    assert [visit.round for visit in result.cases["first"].visits] == [0, 1]
    assert [visit.round for visit in result.cases["last"].visits] == [0, 1]


@THROUGH_ADB
def test_a_library_for_another_processor_is_told(lab: Lab, relu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = bundle.native_bundle("aarch64"), bundle.native_bundle("x86_64")
    wrong = replace(ours, files={**ours.files, ours.library: other.files[other.library]})
    monkeypatch.setattr(bundle, "native_bundle", lambda abi, **_: wrong)
    device = lab.open()
    with refused(DeviceError, bundle.native_bundle("aarch64").library, code=4):
        run_job(device, Job("litert", (Case("a", relu),), timing=TIMING))


def test_what_a_killed_holder_left_running_is_ended(lab: Lab) -> None:
    device = lab.open()
    with device.lease():
        pass
    argv = device._shell.argv(
        f"cd {device.folder} && sleep 613 </dev/null >/dev/null 2>&1 & echo $! >{device.folder}/run/left; sleep 1"
    )
    client = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(0.7)
    client.send_signal(signal.SIGKILL)
    client.wait()
    fresh = lab.open()
    with fresh.lease():
        lines: list[str] = []
        fresh.run(["ps", "-eo", "args"], timeout_s=30, on_line=lines.append)
    assert not [line for line in lines if "sleep 613" in line]


@THROUGH_SSH
def test_a_changed_host_key_is_refused(lab: Lab, relu: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    config = lab.config.read_text()
    known = next(Path(line.split()[1].strip('"')) for line in config.splitlines() if "UserKnownHostsFile" in line)
    place = known.read_text().split()[0]
    known.write_text(f"{place} {(tmp_path / 'other.pub').read_text()}")
    with refused(DeviceError, "host key", "labarm", "changed", code=4):
        run_inference(lab.open(), relu, np.zeros((1, 4, 4, 3), np.float32), runtime="litert")
    known.write_text("")
    with refused(DeviceError, "host key", "labarm", "known", code=4):
        lab.open().facts()
