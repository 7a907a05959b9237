from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import refused
from listening import Listening

from edgeprune.checksum import file_sha256
from edgeprune.devices import runners
from edgeprune.devices.inference import run_inference
from edgeprune.devices.jobs import Case, Job, Timing, run_job, runtime_build
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import DeviceError, ToolkitMissing, UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_writer import write_operation

TIMING = Timing("interleaved", 3, True, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.001, max_samples=16)
RELU = OpSignature("activation", 3, 3, 4, 4, function="relu")


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    path = tmp_path / "relu.tflite"
    write_operation(RELU, path)
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.tflite"
    write_operation(OpSignature("max_pool2d", 3, 3, 4, 4, (2, 2), (2, 2)), path)
    return path


def test_inference_answers_each_input_in_order(device: LocalDevice, relu: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((37, 4, 4, 3), dtype=np.float32)
    progress = Listening()
    result = run_inference(device, relu, inputs, runtime="litert", progress=progress)
    np.testing.assert_array_equal(result.outputs[0], np.maximum(inputs, 0))
    assert progress.told[-1] == (f"{relu.name} on local", 37, 37)
    assert progress.done == sorted(progress.done)
    assert result.build.name == "litert"
    assert len(result.build.sha256) == 64
    assert result.peak_memory_bytes is None or result.peak_memory_bytes > 0


def test_the_device_keeps_no_files_of_a_finished_job(device: LocalDevice, relu: Path, tmp_path: Path) -> None:
    run_inference(device, relu, np.zeros((1, 4, 4, 3), np.float32), runtime="litert")
    assert list((tmp_path / "device" / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((2, 3, 4, 4), np.float32),
        np.zeros((2, 4, 4, 3), np.float64),
        np.zeros((0, 4, 4, 3), np.float32),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_both_shapes(device: LocalDevice, relu: Path, inputs: Any) -> None:
    with refused(UsageError, "relu.tflite", "float32 (1, 4, 4, 3)"):
        run_inference(device, relu, inputs, runtime="litert")


def test_a_file_that_is_no_model_is_refused_by_name(device: LocalDevice, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"not a model at all")
    with refused(UsageError, bad, "litert"):
        run_inference(device, bad, np.zeros((1, 1), np.float32), runtime="litert")
    with refused(UsageError, tmp_path / "missing.tflite"):
        run_inference(device, tmp_path / "missing.tflite", np.zeros((1, 1), np.float32), runtime="litert")


def test_a_runtime_that_is_not_there_is_named(device: LocalDevice, relu: Path) -> None:
    with pytest.raises(ToolkitMissing, match="tvm"):
        run_job(device, Job("tvm", (Case("a", relu),)))  # type: ignore[arg-type]


def test_cases_are_visited_in_turn(device: LocalDevice, relu: Path, pool: Path) -> None:
    orders = {}
    for schedule in ("interleaved", "mirrored", "sequential"):
        seen: list[str] = []

        def note(event: dict[str, Any], seen: list[str] = seen) -> None:
            if event["event"] == "samples":
                seen.append(event["case"])

        timing = Timing(schedule, 3, True, warm_up_runs=1, warm_up_s=0, min_runs=2, min_s=0.001, max_samples=8)
        result = run_job(device, Job("litert", (Case("A", relu), Case("B", pool)), timing=timing), on_event=note)
        orders[schedule] = "".join(seen)
        assert all([v.round for v in c.visits] == [0, 1, 2] for c in result.cases.values())
        assert all(s > 0 for c in result.cases.values() for v in c.visits for s in v.seconds)
    assert orders == {"interleaved": "ABABAB", "mirrored": "ABBAAB", "sequential": "AAABBB"}


def test_an_unreadable_case_leaves_the_others_alone(device: LocalDevice, relu: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"bad")
    result = run_job(device, Job("litert", (Case("bad", bad), Case("good", relu)), timing=TIMING))
    assert result.processes == 1
    assert "valid" in (result.cases["bad"].failure or "")
    assert len(result.cases["good"].visits) == 3


CRASHING = """
import os, sys, types
sys.path.insert(0, {folder!r})
import python_runner as runner
load = runner.load_case
def crashing(job, case):
    if {digest!r} in case["model"]:
        os.kill(os.getpid(), {signal})
    return load(job, case)
runner.load_case = crashing
sys.exit(runner.main(sys.argv[1:]))
"""


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that the real runner dies of, by a real signal."""
    wrapper, model = tmp_path / "crashing.py", tmp_path / "crash.tflite"
    write_operation(replace(RELU, in_channels=5, out_channels=5), model)
    folder, digest = str(runners.runner_script().parent), file_sha256(model)
    wrapper.write_text(CRASHING.format(folder=folder, digest=digest, signal=int(signal.SIGSEGV)))
    monkeypatch.setattr(runners, "runner_script", lambda: wrapper)
    return model


def test_a_model_that_crashes_the_runtime_costs_only_itself(
    device: LocalDevice, relu: Path, pool: Path, crashing: Path
) -> None:
    cases = (Case("first", relu), Case("crash", crashing), Case("last", pool))
    result = run_job(device, Job("litert", cases, timing=TIMING))
    assert "SIGSEGV" in (result.cases["crash"].failure or "")
    assert [v.round for v in result.cases["first"].visits] == [0, 1, 2]
    assert [v.round for v in result.cases["last"].visits] == [0, 1, 2]
    assert result.processes == 2


def test_inference_goes_on_after_a_crash_too(device: LocalDevice, relu: Path, crashing: Path) -> None:
    inputs = np.ones((2, 4, 4, 3), np.float32)
    seen: list[str] = []
    cases = (Case("a", relu, (inputs,)), Case("crash", crashing, (inputs,)), Case("b", relu, (inputs * 2,)))
    job = Job("litert", cases)
    result = run_job(device, job, on_event=lambda e: seen.append(e["case"]) if e["event"] == "begin" else None)
    assert seen == ["a", "crash", "b"]  # what was finished is not run again
    assert result.cases["b"].outputs is not None
    assert float(result.cases["b"].outputs[0].max()) == 2.0


CRASHING_LATER = """
import os, sys
sys.path.insert(0, {folder!r})
import python_runner as runner
infer = runner.infer_case
def crashing(job, case):
    infer(job, case)
    if {digest!r} in case["model"]:
        os.kill(os.getpid(), {signal})
runner.infer_case = crashing
sys.exit(runner.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("last", [False, True])
def test_a_model_that_crashes_the_runtime_once_it_has_run(
    device: LocalDevice, relu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """As one does that has spoilt the memory: what it gave is not believed, the others go on."""
    wrapper, model = tmp_path / "crashing.py", tmp_path / "crash.tflite"
    write_operation(replace(RELU, in_channels=5, out_channels=5), model)
    folder, digest = str(runners.runner_script().parent), file_sha256(model)
    wrapper.write_text(CRASHING_LATER.format(folder=folder, digest=digest, signal=int(signal.SIGABRT)))
    monkeypatch.setattr(runners, "runner_script", lambda: wrapper)
    inputs = np.ones((2, 4, 4, 3), np.float32)
    cases = [Case("a", relu, (inputs,)), Case("crash", model, (np.ones((2, 4, 4, 5), np.float32),))]
    result = run_job(device, Job("litert", tuple(cases if last else [*cases, Case("b", relu, (inputs,))])))
    assert "SIGABRT" in (result.cases["crash"].failure or "")
    assert result.cases["crash"].outputs is None
    assert all(case.outputs is not None for name, case in result.cases.items() if name != "crash")


def test_a_file_that_crashes_is_a_clear_error(device: LocalDevice, crashing: Path) -> None:
    with refused(UsageError, crashing, "litert", "SIGSEGV"):
        run_inference(device, crashing, np.zeros((1, 4, 4, 3), np.float32), runtime="litert")


def test_a_runner_that_does_not_start_is_a_device_error(
    device: LocalDevice, relu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no numpy here')")
    monkeypatch.setattr(runners, "runner_script", lambda: broken)
    with refused(DeviceError, "no numpy here", code=4):
        run_job(device, Job("litert", (Case("a", relu),)))


def test_what_a_runtime_prints_is_not_taken_for_an_answer(
    device: LocalDevice, relu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = tmp_path / "loud.py"
    folder = str(runners.runner_script().parent)
    loud.write_text(
        f"import os, sys\nsys.path.insert(0, {folder!r})\nimport python_runner as runner\nload = runner.load_case\n"
        "def shout(job, case):\n    print('hello'); os.write(1, b'raw\\n'); return load(job, case)\n"
        "runner.load_case = shout\nsys.exit(runner.main(sys.argv[1:]))\n"
    )
    monkeypatch.setattr(runners, "runner_script", lambda: loud)
    result = run_job(device, Job("litert", (Case("a", relu),), timing=TIMING))
    assert len(result.cases["a"].visits) == 3


def test_every_runtime_tells_its_build(device: LocalDevice) -> None:
    builds = {name: runtime_build(device, name) for name in ("litert", "onnxruntime")}  # type: ignore[arg-type]
    assert builds["litert"].id != builds["onnxruntime"].id
    assert builds["litert"].version == device.facts().runtimes["litert"]


def test_a_job_is_plain_json_that_the_runner_refuses_in_another_version(device: LocalDevice, tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"version": 99, "runtime": "litert"}))
    runner = runners.runner_for(device, "litert")
    device.push_all({**runner.files, "job.json": path})
    done = device.run([*runner.argv, device.path("job.json")], timeout_s=60, on_line=lambda line: None)
    assert done.exit_code == 2
    assert "version 1" in done.stderr_tail


def test_memory_of_a_larger_model_is_larger(device: LocalDevice, tmp_path: Path) -> None:
    peaks = []
    for channels in (16, 1024):
        path = tmp_path / f"{channels}.tflite"
        write_operation(OpSignature("linear", channels, channels), path)
        peaks.append(run_job(device, Job("litert", (Case("a", path),))).cases["a"].peak_memory_bytes)
    assert peaks[0] is not None
    assert peaks[1] is not None
    assert peaks[1] - peaks[0] > 4 * 1024**2 * 0.9  # at least the weights, 4 MiB
