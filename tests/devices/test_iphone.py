"""iPhones through devicectl and pymobiledevice3, which are not real here: see fake_phone.py. What is tested is what
edgeprune asks, what it makes of the answers, and that a job, its files and its losses go through. Apple's hardware is
in no test.

The app's place is taken by a Python stand-in, and, where Swift is, by the app's own framework-free part.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import refused
from fake_phone_state import BUNDLE, DEVICES, UDID, USBMUX
from several_tensors import sum_cast_most, two_to_three

from device_profiles import match_profile
from edgeprune.devices import iphone, jobs
from edgeprune.devices.devicectl import Devicectl
from edgeprune.devices.discovery import find_devices, open_device
from edgeprune.devices.inference import run_inference
from edgeprune.devices.iphone import IPhone
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.devices.local import LocalDevice
from edgeprune.devices.means import means
from edgeprune.devices.phone_app import sources_version
from edgeprune.devices.phone_console import PhoneConsole
from edgeprune.devices.phone_link import PhoneLink
from edgeprune.devices.prepare import prepare_device
from edgeprune.devices.pymobile import PyMobile
from edgeprune.devices.runners import runner_script
from edgeprune.devices.runtimes import runtime_of
from edgeprune.errors import DeviceError, DeviceLost, ToolkitMissing, UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.isolation import wait_until_cool
from edgeprune.latency.protocol import measure
from edgeprune.latency.tflite_writer import write_operation

HERE = Path(__file__).parent
TIMING = Timing("shuffled", 3, True, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.001, max_samples=16, seed=5)
INPUTS = np.random.default_rng(0).standard_normal((7, 4, 4, 3), dtype=np.float32)


class Phone:
    """A fake phone: its state, and what was asked of it."""

    def __init__(self, home: Path, app: list[str]) -> None:
        self.home = home
        (home / "container" / "Documents").mkdir(parents=True)
        (home / "app").write_text(json.dumps(app))
        self.state: dict[str, Any] = {
            "devices": DEVICES,
            "usbmux": USBMUX,
            "apps": {"com.example.other": "1", BUNDLE: sources_version()},
            "developer_mode": True,
        }
        self.tell()

    def tell(self, **changes: Any) -> None:
        self.state |= changes
        (self.home / "state.json").write_text(json.dumps(self.state))

    def asked(self, *words: str) -> list[list[str]]:
        """The command lines that hold these words."""
        lines = (self.home / "asked.jsonl").read_text().splitlines()
        return [words_ for words_ in map(json.loads, lines) if set(words) <= set(words_)]

    def open(self, kind: type[PhoneLink]) -> IPhone:
        (seen,) = (phone for phone in kind.seen() if phone.udid == UDID)
        return IPhone(kind(UDID), seen)


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of PATH where the tools lie; leases and registries are the test's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return folder


def installed(phone: Phone, bin: Path, *tools: str) -> None:
    for tool in tools:
        words = shlex.join([sys.executable, str(HERE / "fake_phone.py"), tool])
        (bin / tool).write_text(f'#!/bin/sh\nEDGEPRUNE_FAKE_PHONE={shlex.quote(str(phone.home))} exec {words} "$@"\n')
        (bin / tool).chmod(0o755)


@pytest.fixture
def python_app() -> list[str]:
    return [sys.executable, str(HERE / "app_stand_in.py"), str(runner_script())]


@pytest.fixture
def phone(tmp_path: Path, bin: Path, python_app: list[str]) -> Phone:
    made = Phone(tmp_path / "phone", python_app)
    installed(made, bin, "xcrun", "pymobiledevice3")
    return made


@pytest.fixture(params=[Devicectl, PyMobile])
def device(request: pytest.FixtureRequest, phone: Phone) -> IPhone:
    return phone.open(request.param)


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    path = tmp_path / "relu.tflite"
    write_operation(OpSignature("activation", 3, 3, 4, 4, function="relu"), path)
    return path


def runs(phone: Phone) -> bool:
    """Whether an app of the phone is alive."""
    try:
        os.kill(int((phone.home / "pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def test_facts_are_those_that_the_tools_tell(device: IPhone) -> None:
    facts = device.facts()
    assert (facts.id, facts.kind, facts.model, facts.os) == (f"apple:{UDID}", "apple", "iPhone16,1", "iOS 18.1")
    assert (facts.ready, facts.runtimes, facts.runners) == (True, {"coreml": "18.1"}, {"coreml": "app"})


def test_a_job_goes_through(device: IPhone, relu: Path, phone: Phone) -> None:
    (build,) = prepare_device(device)
    assert build.name == "coreml"
    result = run_inference(device, relu, INPUTS, runtime="coreml")
    np.testing.assert_array_equal(result.outputs[0], np.maximum(INPUTS, 0))
    timed = run_job(device, Job("coreml", (Case("a", relu), Case("b", relu)), timing=TIMING, compute_units="CPU_ONLY"))
    assert (build.compute_units, timed.build.compute_units) == ("ALL", "CPU_ONLY")
    assert timed.build.id == f"{build.id}-CPU_ONLY"  # a latency is of these units
    assert [len(case.visits) for case in timed.cases.values()] == [3, 3]
    assert timed.processes == 1
    assert list((phone.home / "container/Documents/edgeprune/jobs").iterdir()) == []
    assert not runs(phone)


def test_several_outputs_come_back_each_with_its_checksum(device: IPhone, phone: Phone, tmp_path: Path) -> None:
    model = two_to_three(tmp_path / "three.tflite")
    image, numbers = INPUTS, np.arange(21, dtype=np.int32).reshape(7, 3)
    right, wanted = sum_cast_most(image, numbers), ["t6", "t3"]
    names = {"input_names": ["t1", "t0"], "outputs": wanted}
    result = run_inference(device, model, [numbers, image], runtime="coreml", **names)
    for name, found in zip(wanted, result.outputs, strict=True):
        np.testing.assert_array_equal(found, right[name])
    assert len(device._told) == 2
    assert list((phone.home / "container/Documents/edgeprune/jobs").iterdir()) == []


def test_what_a_console_loses_is_taken_from_the_file(device: IPhone, relu: Path, phone: Phone) -> None:
    whole = run_inference(device, relu, INPUTS, runtime="coreml")
    phone.tell(loses=True)
    events: list[str] = []
    job = Job("coreml", (Case("a", relu, (INPUTS,)),))
    result = run_job(device, job, on_event=lambda event: events.append(event["event"]))
    assert events == ["start", "conditions", "begin", "progress", "outputs", "conditions", "end"]
    np.testing.assert_array_equal(result.cases["a"].outputs, whole.outputs)
    phone.tell(loses=False, silent=True)
    np.testing.assert_array_equal(run_inference(device, relu, INPUTS, runtime="coreml").outputs, whole.outputs)


def test_a_console_that_shows_nothing_is_no_hanging_job(
    device: IPhone, relu: Path, phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iphone, "SILENCE_S", 0.2)
    phone.tell(silent=True)
    seen: list[bool] = []
    timing = Timing("interleaved", 3, True, warm_up_runs=1, warm_up_s=0.3, min_runs=2, min_s=0.3, max_samples=16)
    result = run_job(
        device, Job("coreml", (Case("a", relu),), timing=timing), on_event=lambda _: seen.append(runs(phone))
    )
    assert len(result.cases["a"].visits) == 3
    assert True in seen  # told while the app was still running


def test_files_are_sent_once_checked_and_removed(device: IPhone, phone: Phone, tmp_path: Path) -> None:
    local = tmp_path / "a.bin"
    local.write_bytes(b"some bytes")
    assert device.push(local, "models/x.bin") == "Documents/edgeprune/models/x.bin"
    there = phone.home / "container/Documents/edgeprune/models/x.bin"
    assert there.read_bytes() == b"some bytes"
    pushed = len(phone.asked("push")) + len(phone.asked("to"))
    device._verified.clear()  # as a new process
    device.push(local, "models/x.bin")  # one job asks for its checksum
    assert len(phone.asked("push")) + len(phone.asked("to")) == pushed + 1
    local.write_bytes(b"other bytes")
    device.push(local, "models/x.bin")
    assert there.read_bytes() == b"other bytes"
    device.pull("models/x.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == b"other bytes"
    device.remove("models/x.bin")
    device.remove("models/nothing")
    assert not there.exists()
    device.push(local, "models/x.bin")
    device.clean()
    assert not there.exists()
    assert device.free_bytes() > 1 << 20
    with refused(DeviceError, "../x", code=4):
        device.path("../x")
    with refused(DeviceError, "models/nothing", code=4):
        device.pull("models/nothing", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_file_that_arrives_damaged_is_noticed(phone: Phone, tmp_path: Path) -> None:
    device = phone.open(Devicectl)
    phone.tell(damages="x.bin")
    local = tmp_path / "a.bin"
    local.write_bytes(b"some bytes")
    with refused(DeviceLost, "x.bin", code=4):
        device.push(local, "models/x.bin")


@pytest.mark.parametrize("how", ["time", "caller"])
def test_the_app_is_ended_when_nobody_waits_for_it(device: IPhone, relu: Path, phone: Phone, how: str) -> None:
    timing = Timing("interleaved", 10**6, True, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.01, max_samples=16)
    job = Job("coreml", (Case("a", relu),), timing=timing)

    def interrupt(event: dict[str, Any]) -> None:
        if how == "caller" and event["event"] == "samples":
            raise KeyboardInterrupt

    with pytest.raises((DeviceError, KeyboardInterrupt), match=r"ran longer|^$"):
        run_job(device, job, timeout_s=3 if how == "time" else 60, on_event=interrupt)
    for _ in range(50):
        if not runs(phone):
            break
        time.sleep(0.1)
    assert not runs(phone)


def test_an_app_that_dies_costs_its_case_only(phone: Phone, bin: Path, relu: Path, tmp_path: Path) -> None:
    stand_in = tmp_path / "dies.py"
    stand_in.write_text(
        "import json, os, sys\n"
        "place = sys.argv[1]; job = json.load(open(place)); record = open(place + '.lines', 'w'); n = [0]\n"
        "def send(e):\n"
        "    line = json.dumps(e); print(line, file=record, flush=True); print('@edgeprune', n[0], line, flush=True)\n"
        "    n[0] += 1\n"
        "send({'event': 'start', 'runtime': 'coreml', 'version': '1', 'sha256': '0' * 64, 'cores': []})\n"
        "send({'event': 'conditions', 'when': 'before', 'time': 1})\n"
        "for case in job.get('cases', []):\n"
        "    send({'event': 'begin', 'case': case['id'], 'round': 0})\n"
        "    if case['id'] == 'bad': print('Fatal error: index out of range', flush=True); os.abort()\n"
        "    send({'event': 'memory', 'case': case['id'], 'peak_bytes': 5})\n"
        "import hashlib\n"
        "for name in job.get('sums', []):\n"
        "    if os.path.exists(name):\n"
        "        sha = hashlib.sha256(open(name, 'rb').read()).hexdigest()\n"
        "        send({'event': 'sum', 'path': name, 'sha256': sha})\n"
        "send({'event': 'end'}); send({'event': 'exit', 'code': 0, 'message': ''})\n"
    )
    (phone.home / "app").write_text(json.dumps([sys.executable, str(stand_in)]))
    result = run_job(phone.open(Devicectl), Job("coreml", (Case("bad", relu), Case("good", relu))))
    assert result.processes == 2
    assert "without a word" in (result.cases["bad"].failure or "")
    assert result.cases["good"].peak_memory_bytes == 5


def test_a_phone_that_is_unplugged_and_comes_back_goes_on(
    phone: Phone, relu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = phone.open(Devicectl)
    monkeypatch.setattr(iphone.IPhone, "poll_s", 0.01)
    away = [{**DEVICES[0], "connectionProperties": {"pairingState": "paired", "tunnelState": "unavailable"}}]
    lost: list[str] = []
    see_it = IPhone._see_it

    def see(self: IPhone) -> None:
        """It is plugged in again after the second look."""
        if len(lost) > 1:
            phone.tell(unplugged=False, devices=DEVICES)
        try:
            see_it(self)
        except DeviceLost as error:
            lost.append(error.what)
            raise

    monkeypatch.setattr(IPhone, "_see_it", see)
    rounds: list[int] = []

    def pull_the_cable(event: dict[str, Any]) -> None:
        if event["event"] == "samples":
            rounds.append(event["round"])
            if len(rounds) == 2:
                phone.tell(unplugged=True, devices=away)
                os.killpg(int((phone.home / "pid").read_text()), 9)

    timing = Timing("interleaved", 5, True, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.05, max_samples=16)
    result = run_job(device, Job("coreml", (Case("a", relu),), timing=timing), on_event=pull_the_cable)
    assert rounds == [0, 1, 2, 3, 4]
    assert result.processes == 2
    assert set(lost) == {"it is not here: plug it in and unlock it"}


def test_a_phone_that_does_not_come_back_is_named(phone: Phone, relu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = phone.open(PyMobile)
    monkeypatch.setattr(jobs, "RECONNECT_WAIT_S", 0.0)
    assert device.facts().ready
    phone.tell(usbmux=[], apps={})
    (phone.home / "app").write_text(json.dumps(["false"]))
    with refused(DeviceLost, f"apple:{UDID}", code=4):
        run_job(device, Job("coreml", (Case("a", relu),)))


def test_a_locked_phone_is_told_from_a_lost_one(phone: Phone, relu: Path) -> None:
    device = phone.open(Devicectl)
    phone.tell(locked=True)
    with refused(DeviceError, "Locked", "unlock", code=4):
        run_job(device, Job("coreml", (Case("a", relu),)))


@pytest.mark.parametrize(
    ("place", "value", "fact"),
    [
        (("connectionProperties", "pairingState"), "unpaired", "paired"),
        (("connectionProperties", "tunnelState"), "unavailable", "plug"),
        (("deviceProperties", "developerModeStatus"), "disabled", "developer mode"),
        (("deviceProperties", "osVersionNumber"), "16.7.2", "iOS 17"),
    ],
)
def test_devicectl_says_why_a_phone_is_not_ready(phone: Phone, place: tuple[str, str], value: str, fact: str) -> None:
    entry = json.loads(json.dumps(DEVICES[0]))
    entry[place[0]][place[1]] = value
    phone.tell(devices=[entry])
    device = phone.open(Devicectl)
    assert not device.facts().ready
    assert fact in device.facts().reason
    with refused(DeviceError, fact, code=4):
        prepare_device(device)
    with refused(DeviceError, fact, code=4):
        device.free_bytes()
    assert phone.asked("launch") == []


def test_what_is_no_phone_is_not_listed(phone: Phone) -> None:
    assert [seen.udid for seen in Devicectl.seen()] == [UDID]  # not the watch, not the simulator
    assert [seen.udid for seen in PyMobile.seen()] == [UDID]  # once, though it is on USB and on Wi-Fi


@pytest.mark.parametrize(
    ("apps", "facts"),
    [({}, ("app",)), ({BUNDLE: "7"}, ("app", 7))],
)
def test_without_the_app_the_way_to_install_it_is_told(
    device: IPhone, phone: Phone, relu: Path, apps: dict[str, str], facts: tuple[object, ...]
) -> None:
    phone.tell(apps=apps)
    for use in (lambda: prepare_device(device), lambda: run_job(device, Job("coreml", (Case("a", relu),)))):
        with refused(DeviceError, *facts, code=4) as raised:
            use()
        hint = raised.value.hint or ""
        assert f"CURRENT_PROJECT_VERSION={sources_version()}" in hint
        assert "DEVELOPMENT_TEAM=TEAM" in hint
        assert UDID in hint.rpartition("&&")[2]
    assert phone.asked("launch") == []


def test_other_runtimes_and_cores_are_refused(device: IPhone, relu: Path) -> None:
    with refused(ToolkitMissing, "Core ML", "litert"):
        run_job(device, Job("litert", (Case("a", relu),)))


def test_low_power_mode_and_heat_are_looked_at(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    device = phone.open(Devicectl)
    profile = match_profile(device.facts())
    assert profile.name == "iPhone 15 Pro"
    now = wait_until_cool(device, profile)
    assert now is not None
    assert now.thermal_status == 1
    monkeypatch.setattr(device, "conditions", lambda: now.model_copy(update={"low_power": True}))
    with refused(DeviceError, "low power mode", code=4):
        wait_until_cool(device, profile)


def test_one_job_at_a_time(phone: Phone) -> None:
    from threading import Thread

    first, second = phone.open(Devicectl), phone.open(Devicectl)
    told: list[str] = []

    def take() -> None:
        try:
            with second.lease():
                pass
        except DeviceError as error:
            told.append(error.what)

    with first.lease():
        thread = Thread(target=take)
        thread.start()
        thread.join()
    assert len(told) == 1


def test_phones_are_found_and_opened_by_their_udid(phone: Phone, bin: Path) -> None:
    (bin / "xcrun").unlink()
    found = {facts.id: facts for facts in find_devices()}
    assert found[f"apple:{UDID}"].ready
    assert open_device(f"apple:{UDID}").facts() == found[f"apple:{UDID}"]
    assert {one.what: one.fix for one in means()}["iPhones and iPads"] == ""
    phone.tell(developer_mode=False)
    assert "amfi enable-developer-mode" in open_device(f"apple:{UDID}").facts().reason
    with refused(DeviceError, "'0000'", code=4):
        open_device("apple:0000")


def test_without_a_tool_the_way_to_get_one_is_told(bin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bin))
    assert not [facts for facts in find_devices() if facts.kind == "apple"]
    assert "pip install pymobiledevice3" in {one.what: one.fix for one in means()}["iPhones and iPads"]


def test_a_console_is_read_whatever_is_between() -> None:
    heard: list[str] = []
    file = [""]
    console = PhoneConsole(heard.append, lambda: file[0])
    console.take("Waiting for the application to terminate…\r")
    console.take('noise@edgeprune 0 {"event": "a"}\r')
    console.take('@edgeprune 1 {"event": "b", "te2026-09-16 noise\r')  # mixed with another: the file has it
    file[0] = '{"event": "a"}\n{"event": "b"}\n{"event": "c"}\n{"event": "d'
    console.take('@edgeprune 2 {"event": "c"}\r')
    console.take('@edgeprune 2 {"event": "c"}\r')
    console.take('@edgeprune x {"event": "c"}\r')
    assert heard == ['{"event": "a"}', '{"event": "b"}', '{"event": "c"}']
    assert console.ended is None
    assert console.said == "Waiting for the application to terminate…\nnoise"
    console.take('@edgeprune 3 {"event": "exit", "code": 2, "message": "no job"}\r')
    assert console.ended == (2, "no job")


# With the app's own framework-free part: toy models, real job, files, schedule, archive and arrays.


@pytest.fixture(params=[Devicectl, PyMobile])
def swift_device(request: pytest.FixtureRequest, tmp_path: Path, bin: Path, swift_app: list[str]) -> IPhone:
    made = Phone(tmp_path / "phone", swift_app)
    installed(made, bin, "xcrun", "pymobiledevice3")
    return made.open(request.param)


def test_a_job_goes_through_the_app(swift_device: IPhone, tmp_path: Path) -> None:
    package = tmp_path / "toy.mlpackage"
    (package / "deep").mkdir(parents=True)
    (package / "toy.txt").write_text("relu float32 1 4 4 3\n")
    (package / "deep" / "weights.bin").write_bytes(bytes(range(256)) * 5000)
    result = run_inference(swift_device, package, INPUTS, runtime="coreml")
    np.testing.assert_array_equal(result.outputs[0], np.maximum(INPUTS, 0))
    assert result.peak_memory_bytes is not None
    timed = run_job(swift_device, Job("coreml", (Case("a", package), Case("b", package)), timing=TIMING))
    assert [len(case.visits) for case in timed.cases.values()] == [3, 3]
    crash = tmp_path / "crash.txt"
    crash.write_text("crash float32 1 2\n")
    both = run_job(swift_device, Job("coreml", (Case("bad", crash), Case("good", package)), memory_runs=2))
    assert both.processes == 2
    assert "without a word" in (both.cases["bad"].failure or "")
    assert both.cases["good"].failure is None
    assert swift_device.free_bytes() == 12_345_678
    swift_device.clean()
    kernels = run_job(swift_device, Job("coreml", (Case("a", package),), profile_runs=2))
    assert kernels.cases["a"].failure == "coreml has no profiler that this runner can ask"
    with refused(DeviceError, "cores", code=4):
        run_job(swift_device, Job("coreml", (Case("a", package),), cores=(1,)))


def test_a_package_is_measured_by_its_name(phone: Phone, tmp_path: Path) -> None:
    """`bench model.mlpackage --device apple:UDID`, up to the model, which the stand-in cannot read."""
    package = tmp_path / "net.mlpackage"
    package.mkdir()
    (package / "x").write_text("x")
    assert runtime_of(package) == "coreml"
    with refused(UsageError, "net.mlpackage"):
        measure(phone.open(Devicectl), [package], runtime="coreml")
    with refused(UsageError, tmp_path / "none.mlpackage"):
        runtime_of(tmp_path / "none.mlpackage")
    with refused(ToolkitMissing, "coreml", "Macs"):
        run_job(LocalDevice(tmp_path / "local"), Job("coreml", (Case("a", package),)))
