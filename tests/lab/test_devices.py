"""The ARM64 machine as a device, through adb and through ssh: the same tests for both."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from facts import refused
from lanes import open_lane
from listening import Listening
from machine import AdbServer, Machine
from several_tensors import sum_cast_most, two_to_three

from edgeprune.devices.adb import open_adb
from edgeprune.devices.inference import run_inference
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.devices.local import LocalDevice
from edgeprune.devices.remote import RemoteDevice
from edgeprune.devices.ssh import open_ssh
from edgeprune.errors import DeviceError, ToolkitMissing
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.isolation import profile_of
from edgeprune.latency.tflite_writer import write_operation

TIMING = Timing("interleaved", 2, True, warm_up_runs=1, warm_up_s=0.0, min_runs=4, min_s=0.001, max_samples=16)


@pytest.fixture(params=["adb", "ssh"])
def device(
    request: pytest.FixtureRequest, arm: Machine, adb_server: AdbServer, ssh_config: Path, lab_environment: None
) -> Iterator[RemoteDevice]:
    opened = open_lane(request.param, arm, ssh_config)
    yield opened
    opened.clean()
    opened.close()


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    path = tmp_path / "re'lu $(touch pwned)\n.tflite"  # a name that users give never reaches the device
    write_operation(OpSignature("activation", 3, 3, 4, 4, function="relu"), path)
    return path


def running(device: RemoteDevice, word: str) -> bool:
    lines: list[str] = []
    device.run(["ps", "-eo", "args"], timeout_s=30, on_line=lines.append)
    return any(word in line and "grep" not in line for line in lines)


def test_it_says_what_it_is(device: RemoteDevice) -> None:
    facts = device.facts()
    assert (facts.model, facts.abi, facts.cores) == ("Virtual ARM64", "aarch64", 1)
    assert facts.os.startswith("Android 14 6.12")
    assert "asimddp" in facts.cpu_features
    assert facts.cpu == "implementer 0x41, parts 0xd0b"
    assert facts.runtimes["litert"]
    assert facts.runners["litert"] == ("native" if facts.kind == "adb" else "python")
    assert 500 * 2**20 < facts.memory_bytes < 2**30
    assert profile_of(device).name == "ARM64 lab, cortex-a76"
    now = device.conditions()
    assert now.cpus == 1
    assert now.cpu_busy_s is not None
    assert now.load_1min is not None
    assert 2**20 < device.free_bytes() < 2**30


def test_files_arrive_as_they_were_sent(device: RemoteDevice, tmp_path: Path) -> None:
    files = {}
    for number, size in enumerate((0, 1, 5000, 3_000_000)):
        path = tmp_path / f"{number}'; $(x)"
        path.write_bytes(os.urandom(size))
        files[f"a/b/{number}.bin"] = path
    device.push_all(files)
    for remote, path in files.items():
        device.pull(remote, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
    lines: list[str] = []
    device.run(["find", device.path("push"), "-type", "f"], timeout_s=30, on_line=lines.append)
    assert lines == []  # nothing half done is left


def test_content_that_was_changed_there_is_sent_again(device: RemoteDevice, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"good" * 1000)
    there = device.push(path, "x")
    device.run(["sh", "-c", f"printf evil > {there}"], timeout_s=30, on_line=print)
    device.push(path, "x")
    device.pull("x", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_large_file_goes_on_where_it_was_broken_off(device: RemoteDevice, tmp_path: Path) -> None:
    from edgeprune.checksum import file_sha256

    path, half = tmp_path / "large", tmp_path / "half"
    path.write_bytes(os.urandom(4_000_000))
    half.write_bytes(path.read_bytes()[:3_999_000])
    device.push(half, f"push/{file_sha256(path)}.part")  # as a broken transfer leaves it
    sent: list[int] = []
    ask = device._shell.ask

    def counting(script: str, **settings: object) -> object:
        if "cat >>" in script:
            stream = settings["stdin"]
            sent.append(4_000_000 - stream.tell())  # type: ignore[attr-defined]
        return ask(script, **settings)  # type: ignore[arg-type]

    device._shell.ask = counting  # type: ignore[method-assign, assignment]
    device.push(path, "large")
    assert sent == [1000]
    device.pull("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("remote", ["../escape", "/etc/passwd", "a b", "a;reboot", "a\nb", "$(x)", ""])
def test_paths_that_are_no_paths_are_refused(device: RemoteDevice, tmp_path: Path, remote: str) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with refused(DeviceError, repr(remote), code=4):
        device.push(tmp_path / "x", remote)


def test_words_reach_a_program_as_they_are(device: RemoteDevice) -> None:
    words = ["a b", "it's", '"q"', "$HOME `id` $(id)", "; reboot", "*", "-n", "ünï", "a\\b", "x&y|z>w"]
    lines: list[str] = []
    device.run(["printf", "%s\\n", *words], timeout_s=30, on_line=lines.append)
    assert lines == words


def test_lines_codes_and_signals_come_back(device: RemoteDevice) -> None:
    lines: list[str] = []
    script = "echo one; echo; echo two; echo err >&2; exit 5"
    done = device.run(["sh", "-c", script], timeout_s=30, on_line=lines.append)
    assert (done.exit_code, lines, done.stderr_tail.strip()) == (5, ["one", "", "two"], "err")
    assert device.run(["sh", "-c", "kill -SEGV $$"], timeout_s=30, on_line=print).exit_code == -11
    assert device.run(["/nonexistent"], timeout_s=30, on_line=print).exit_code == 127


def test_what_runs_too_long_is_ended_there(device: RemoteDevice) -> None:
    with refused(DeviceError, "1 s", code=4):
        device.run(["sleep", "611"], timeout_s=1, on_line=print)
    assert not running(device, "sleep 611")


def test_an_interrupt_ends_what_runs_there(device: RemoteDevice) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.run(["sh", "-c", "echo here; sleep 612"], timeout_s=60, on_line=interrupt)
    time.sleep(0.5)
    assert not running(device, "echo here; sleep 612")


def test_output_without_end_is_ended(device: RemoteDevice) -> None:
    with refused(DeviceError, device.id, "without end", code=4):
        device.run(["sh", "-c", "tr '\\0' x </dev/zero"], timeout_s=120, on_line=print)
    assert not running(device, "tr \\0 x")


def test_thirty_rounds_leave_nothing_behind(device: RemoteDevice, tmp_path: Path) -> None:
    path = tmp_path / "x"
    lines: list[str] = []

    def round_trip(number: int) -> None:
        path.write_bytes(f"{number}".encode())
        device.push(path, "x")
        device.run(["cat", device.path("x")], timeout_s=30, on_line=lines.append)
        device.pull("x", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == path.read_bytes()

    rounds = 30
    round_trip(0)
    me = psutil.Process()
    before = (me.num_fds(), len(me.children(recursive=True)), len(list(tmp_path.iterdir())))
    for number in range(1, rounds):
        round_trip(number)
    assert lines == [str(number) for number in range(rounds)]
    assert (me.num_fds(), len(me.children(recursive=True)), len(list(tmp_path.iterdir()))) == before
    left: list[str] = []
    device.run(["find", device.path("push"), device.path("run"), "-type", "f"], timeout_s=30, on_line=left.append)
    assert len(left) == 1  # the number of the process that looks


def test_the_same_file_answers_the_same_as_here(device: RemoteDevice, relu: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((300, 4, 4, 3), dtype=np.float32)  # more than one batch
    progress = Listening()
    there = run_inference(device, relu, inputs, runtime="litert", progress=progress)
    here = run_inference(LocalDevice(), relu, inputs, runtime="litert")
    np.testing.assert_array_equal(there.outputs[0], here.outputs[0])
    assert progress.told[-1] == (f"{relu.name} on {device.id}", 300, 300)
    assert there.build.version == here.build.version
    assert there.build.sha256 != here.build.sha256


def test_several_inputs_and_outputs_are_the_same_as_here(device: RemoteDevice, tmp_path: Path) -> None:
    model = two_to_three(tmp_path / "three.tflite")
    image = np.random.default_rng(0).standard_normal((9, 4, 4, 3), dtype=np.float32)
    numbers = np.arange(27, dtype=np.int32).reshape(9, 3)
    there = run_inference(device, model, [image, numbers], runtime="litert").outputs
    assert [one.dtype for one in there] == ["float32", "int64", "float32"]
    for found, right in zip(there, sum_cast_most(image, numbers).values(), strict=True):
        np.testing.assert_array_equal(found, right)


def test_a_job_measures_there(device: RemoteDevice, relu: Path) -> None:
    result = run_job(device, Job("litert", (Case("it's $(a)\n", relu),), timing=TIMING))
    visits = result.cases["it's $(a)\n"].visits
    assert [visit.round for visit in visits] == [0, 1]
    assert all(0 < second < 1 for visit in visits for second in visit.seconds)
    assert result.before.clock_s is not None
    assert result.after.clock_s is not None
    assert result.after.clock_s > result.before.clock_s


def test_a_runner_that_others_damaged_between_two_jobs_goes_over_again(device: RemoteDevice, relu: Path) -> None:
    job = Job("litert", (Case("a", relu),), timing=TIMING)
    run_job(device, job)
    for damage in ('printf evil >"$f"', 'rm "$f"'):
        every = f'cd {device.folder} && for f in native/*/* runner/*; do [ ! -f "$f" ] || {damage}; done'
        assert device.run(["sh", "-c", every], timeout_s=30, on_line=print).exit_code == 0
        assert len(run_job(device, job).cases["a"].visits) == 2


def test_a_job_leaves_nothing_of_its_own(device: RemoteDevice, relu: Path) -> None:
    inputs = np.zeros((2, 4, 4, 3), np.float32)
    run_inference(device, relu, inputs, runtime="litert")
    run_job(device, Job("litert", (Case("a", relu),), timing=TIMING))
    left: list[str] = []
    device.run(["find", device.path("jobs"), device.path("push"), "-type", "f"], timeout_s=30, on_line=left.append)
    assert left == []


def test_a_runtime_that_is_not_there_is_refused(device: RemoteDevice, relu: Path) -> None:
    with refused(ToolkitMissing, "executorch"):
        run_job(device, Job("executorch", (Case("a", relu),)))


def test_two_jobs_never_measure_on_one_device(device: RemoteDevice, arm: Machine, ssh_config: Path) -> None:
    other = open_lane(device.facts().kind, arm, ssh_config)
    with device.lease(), refused(DeviceError, os.getpid(), code=4), other.lease():
        pass


def test_ssh_uses_the_native_runner_when_told(
    arm: Machine, ssh_config: Path, relu: Path, lab_environment: None
) -> None:
    device = open_ssh("labarm", config=ssh_config, runner="native")
    assert device.facts().runners["litert"] == "native"
    result = run_job(device, Job("litert", (Case("a", relu),), timing=TIMING))
    assert len(result.cases["a"].visits) == 2
    device.close()


@pytest.mark.parametrize("serial", ["", "-s evil", "no such; $(reboot)", "127.0.0.1:1"])
def test_a_serial_that_is_not_there_is_named(adb_server: AdbServer, lab_environment: None, serial: str) -> None:
    with pytest.raises(DeviceError) as gone:
        open_adb(serial)
    assert gone.value.exit_code == 4


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch /tmp/pwned", "a b"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with refused(DeviceError, repr(host), code=4):
        open_ssh(host)


def test_a_step_that_fails_there_is_told(device: RemoteDevice, tmp_path: Path) -> None:
    with refused(DeviceError, "nothing", code=4) as told:
        device.pull("nothing", tmp_path / "x")
    assert os.strerror(errno.ENOENT).lower() in str(told.value).lower()
    assert not list(tmp_path.iterdir())
    (tmp_path / "x").write_bytes(b"x")
    device.push(tmp_path / "x", "a")
    with refused(DeviceError, 1, code=4):
        device.push(tmp_path / "x", "a/b")  # a is a file
