"""Devices that misbehave: whatever they answer, it is an error of the device (exit code 4), in time and in memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.devices import child, runners, shell
from edgeprune.devices.base import DeviceFacts
from edgeprune.devices.inference import run_inference
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.devices.local import LocalDevice
from edgeprune.devices.reading import read_facts
from edgeprune.devices.remote import RemoteDevice
from edgeprune.devices.runners import runner_for
from edgeprune.devices.shell import Shell
from edgeprune.errors import DeviceError, DeviceLost, ToolkitMissing
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_writer import write_operation

RELU = OpSignature("activation", 3, 3, 4, 4, function="relu")
TIMING = Timing("interleaved", 2, True, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.001, max_samples=16)

# A shell that answers every script with BODY; MARK and CODE as a real one would say them.
LIAR = r"""
import re, sys, time
script = sys.argv[1] if "@edgeprune" in sys.argv[1] else sys.stdin.readline()
mark = re.search("@edgeprune-[0-9a-f]+", script)[0].encode()
hello = re.search(rb"echo " + mark + rb"[;\n]", script.encode()) and script.startswith("echo")
out = sys.stdout.buffer
def say(body, code=b"0", pause=0):
    if hello: out.write(mark + b"\n")
    out.write(body)
    out.flush()
    time.sleep(pause)
    out.write(b"\n\n" + mark + b" " + code + b"\n")
    out.flush()
try:
    WHAT
except BrokenPipeError:
    pass
"""
LIES = {
    "a code that is no number": "say(b'/tmp\\n', code=b'banana')",
    "a code of 5,000 digits": "say(b'/tmp\\n', code=b'9' * 5000)",
    "no code": "say(b'/tmp\\n', code=b'')",
    "an empty answer": "say(b'')",
    "nothing at all": "pass",
    "one line too many": "say(b'/tmp\\nx\\ny\\n')",
    "binary junk": "say(bytes(range(256)) * 100)",
    "no end of line": "say(b'x' * (1 << 20))",
    "lines without end": "[say(b'y\\n' * 10000) if False else out.write(b'y\\n' * 10000) for _ in range(10**9)]",
    "too late": "say(b'/tmp\\n', pause=30)",
}


class Liar(Shell):
    """A device whose shell answers nonsense."""

    def __init__(self, what: str) -> None:
        super().__init__("test:liar")
        self._program = LIAR.replace("WHAT", what)

    def argv(self, script: str) -> list[str]:
        return [sys.executable, "-c", self._program, script]

    def lost(self, step: str, said: str) -> DeviceError:
        return DeviceLost(f"{step}: the connection broke off ({said})", where=self.device_id)


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LINE_MOST", 1 << 19)
    monkeypatch.setattr(shell, "ANSWER_MOST", 1 << 20)
    monkeypatch.setattr(shell, "SHORT_S", 1.5)


@pytest.mark.parametrize("lie", LIES)
def test_answers_of_a_shell(lie: str, tmp_path: Path) -> None:
    device = RemoteDevice(Liar(LIES[lie]), kind="ssh", folder=str(tmp_path / "work"))
    (tmp_path / "x").write_bytes(b"x" * 100_000)
    asked: list[Callable[[], Any]] = [
        lambda: device.folder,
        lambda: device.push(tmp_path / "x", "models/x"),
        device.free_bytes,
    ]
    for ask in asked:
        with pytest.raises(DeviceError) as refused:
            ask()
        assert refused.value.exit_code == 4
    device.close()


FACTS = "@@system\nLinux\n6.1\naarch64\n@@memory\nMemTotal: 4000 kB\n@@cores\n4\n@@python\n"


@pytest.mark.parametrize(
    "text",
    [
        FACTS.replace("\n4\n", "\nmany\n"),
        FACTS.replace("\n4\n", "\n" + "9" * 5000 + "\n"),
        FACTS.replace("4000", "9" * 5000),
        FACTS.replace("\n4\n", "\n0\n"),
        FACTS + '["python", ["numpy"], "3.11"]',
        FACTS + '["python", {"numpy": NaN}, [3, "11"]]',
        FACTS + '[[1], {"numpy": "2", "ai-edge-litert": 3}, [3, 11]]',
        FACTS + "@@libc\nglibc\n@@temperature\n²\n",
    ],
)
def test_facts_and_conditions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """They are read, or the device is at fault."""
    device = RemoteDevice(Liar("pass"), kind="ssh", folder=str(tmp_path))
    monkeypatch.setattr(Liar, "ask", lambda *_, **__: shell.Answer(0, text, ""))
    try:
        facts = device.facts()
    except DeviceError as error:
        told = error
        assert told.exit_code == 4
    else:
        assert 1 <= facts.cores < 1 << 20
    for line in ("@@load\nx y z a/b", "@@uptime\n-", "@@stat\ncpu " + "x " * 12, "@@stat\ncpu 1 2 3 4 5 6 7 8 9\nzero"):
        monkeypatch.setattr(Liar, "ask", lambda *_, line=line, **__: shell.Answer(0, line, ""))
        with pytest.raises(DeviceError):
            device.conditions()


def test_a_phone_of_32_bits_is_told_so() -> None:
    text = "@@system\nLinux\n4.4\narmv7l\n@@properties\n[ro.build.version.release]: [9]\n"
    facts = read_facts(text, id="adb:old", kind="adb", prefer="native", asked="")

    class Old:
        id = "adb:old"

        def facts(self) -> DeviceFacts:
            return facts

    with pytest.raises(ToolkitMissing) as refused:
        runner_for(Old(), "litert")  # type: ignore[arg-type]
    assert "64" in str(refused.value)
    assert "armv7l" in str(refused.value)


START = {"event": "start", "runtime": "litert", "version": "1", "sha256": "ab", "cores": [0]}
BEFORE = {"event": "conditions", "when": "before", "time": 1.0}
BEGIN = {"event": "begin", "case": "0", "round": 0}
END = {"event": "end"}
SAMPLES = {"event": "samples", "case": "0", "round": 0, "seconds": [0.1], "preempted": [], "runs_per_sample": 1}
SAMPLES |= {"steal_s": None}

OUTPUTS = {"event": "outputs", "case": "0", "file": "jobs/x", "peak_bytes": None}


def lines(*events: object) -> str:
    return "".join(event if isinstance(event, str) else json.dumps(event) + "\n" for event in events)


RUNNERS: dict[str, str] = {
    "no JSON": "hello\n" * 3,
    "a number": "1\n2\n3\n",
    "a list": "[]\n[]\n",
    "deep": "[" * 100_000 + "\n" + "[" * 100_000 + "\n",
    "no fields": lines({"event": "start"}),
    "fields of other types": lines({**START, "cores": 3, "version": []}, BEFORE, END),
    "another runtime": lines({**START, "runtime": "executorch"}, BEFORE, END),
    "a runtime of no name": lines({**START, "runtime": "x" * 100}, BEFORE, END),
    "conditions of text": lines(START, {**BEFORE, "time": "now"}, END),
    "a case that is a list": lines(START, BEFORE, {"event": "begin", "case": ["0"]}, END),
    "nothing done": lines(START, BEFORE, END),
    "nothing said": "",
    "times of NaN": lines(START, BEFORE, BEGIN, {**SAMPLES, "seconds": [float("nan")]}, END),
    "negative times": lines(START, BEFORE, BEGIN, {**SAMPLES, "seconds": [-1.0]}, END),
    "no times": lines(START, BEFORE, BEGIN, {**SAMPLES, "seconds": []}, END),
    "times of text": lines(START, BEFORE, BEGIN, {**SAMPLES, "seconds": ["fast"]}, END),
    "indices that are not there": lines(START, BEFORE, BEGIN, {**SAMPLES, "preempted": [5]}, END),
    "no runs": lines(START, BEFORE, BEGIN, {**SAMPLES, "runs_per_sample": 0}, END),
    "an output elsewhere": lines(START, BEFORE, BEGIN, {**OUTPUTS, "file": "/etc/passwd"}, END),
    "more outputs that are no list": lines(START, BEFORE, BEGIN, {**OUTPUTS, "more_files": 3}, END),
    "outputs without end": lines(START, BEFORE, BEGIN, {**OUTPUTS, "more_files": ["jobs/x"] * 100_000}, END),
    "memory of text": lines(START, BEFORE, BEGIN, {"event": "memory", "case": "0", "peak_bytes": "much"}, END),
    "kernels of other counts": lines(
        START,
        BEFORE,
        BEGIN,
        {"event": "profile", "case": "0", "names": ["a"], "times_us": [[1, 2]], "whole_us": []},
        END,
    ),
    "an error without words": lines(START, BEFORE, BEGIN, {"event": "error", "case": "0"}, END),
}


@pytest.fixture
def saying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], LocalDevice]]:
    """A device whose runner says a text, whatever its job."""

    def device(text: str, more: str = "") -> LocalDevice:
        (tmp_path / "text").write_text(text)
        wrapper = tmp_path / "saying.py"
        wrapper.write_text(f"import sys\nsys.stdout.write(open({str(tmp_path / 'text')!r}).read())\n{more}")
        monkeypatch.setattr(runners, "runner_script", lambda: wrapper)
        return LocalDevice(tmp_path / "device")

    return device  # type: ignore[return-value]


@pytest.mark.parametrize("told", RUNNERS)
@pytest.mark.parametrize("timed", [True, False])
def test_what_a_runner_says(saying: Callable[[str], LocalDevice], tmp_path: Path, told: str, timed: bool) -> None:
    write_operation(RELU, tmp_path / "relu.tflite")
    device = saying(RUNNERS[told])
    inputs = () if timed else (np.zeros((2, 4, 4, 3), np.float32),)
    job = Job("litert", (Case("0", tmp_path / "relu.tflite", inputs),), timing=TIMING if timed else None)
    with pytest.raises(DeviceError) as refused:
        run_job(device, job)
    assert refused.value.exit_code == 4


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (2, 4, 4, 3, 1 << 40), ()])
@pytest.mark.parametrize("kind", ["float32", "object", "junk"])
def test_outputs_that_are_not_those_of_the_inputs(
    saying: Any, tmp_path: Path, shape: tuple[int, ...], kind: str
) -> None:
    """As many as inputs, numbers, and what the file says that it holds."""
    write_operation(RELU, tmp_path / "relu.tflite")
    header = str({"descr": "<f4" if kind == "float32" else "|O", "fortran_order": False, "shape": shape})
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    body = b"junk" if kind == "junk" else body + bytes(4 * int(np.prod(shape)) if len(shape) < 5 else 0)
    write = (
        "import json\njob = json.load(open(sys.argv[1]))\nfile = job['cases'][0]['outputs']\n"
        f"open(file, 'wb').write({body!r})\n"
        "print(json.dumps({'event': 'outputs', 'case': job['cases'][0]['id'], 'file': file, 'peak_bytes': None}))\n"
        'print(\'{"event": "end"}\')\n'
    )
    device = saying(lines(START, BEFORE, BEGIN), write)
    with pytest.raises(DeviceError) as refused:
        run_inference(device, tmp_path / "relu.tflite", np.zeros((2, 4, 4, 3), np.float32), runtime="litert")
    assert refused.value.exit_code == 4


@pytest.mark.parametrize("count", [1, 3])
def test_outputs_that_are_not_as_many_as_were_wanted(saying: Any, tmp_path: Path, count: int) -> None:
    write_operation(RELU, tmp_path / "relu.tflite")
    np.save(tmp_path / "whole.npy", np.zeros((2, 4, 4, 3), np.float32))
    write = (
        "import json, shutil\njob = json.load(open(sys.argv[1]))\ncase = job['cases'][0]\n"
        f"files = [case['outputs'] + str(number) for number in range({count})]\n"
        f"for file in files: shutil.copyfile({str(tmp_path / 'whole.npy')!r}, file)\n"
        "event = {'event': 'outputs', 'case': case['id'], 'file': files[0], 'more_files': files[1:]}\n"
        "print(json.dumps({**event, 'peak_bytes': None}))\nprint('{\"event\": \"end\"}')\n"
    )
    device = saying(lines(START, BEFORE, BEGIN), write)
    inputs, wanted = np.zeros((2, 4, 4, 3), np.float32), ["a", "b"]
    with pytest.raises(DeviceError) as refused:
        run_inference(device, tmp_path / "relu.tflite", inputs, runtime="litert", outputs=wanted)
    assert refused.value.exit_code == 4
    assert len(run_inference(device, tmp_path / "relu.tflite", inputs, runtime="litert").outputs) == count
