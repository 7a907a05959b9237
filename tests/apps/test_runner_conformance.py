"""The runners speak one language: the same jobs to the Python runner and to the native one, and what they answer.

No time is judged here. With EDGEPRUNE_REQUIRE_LAB=1 a bundle that cannot be built is a failure, not a skip.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from two_runners import (
    CONV,
    LINEAR,
    RELU,
    TIMES,
    Array,
    Runner,
    cast,
    free_batch,
    infer_case,
    quantized_linear,
    sum_of_two,
    two_outputs,
    written,
)

from edgeprune.graph.operations import OpSignature


def test_it_says_what_it_runs_on(runner: Runner, tmp_path: Path) -> None:
    answer = runner.run(tmp_path, {"mode": "memory", "runs": 1, "cases": [], "threads": 2})
    assert (answer.code, [e["event"] for e in answer.events]) == (0, ["start", "conditions", "conditions", "end"])
    start, before, after, _ = answer.events
    assert {"runtime", "version", "library", "sha256", "threads", "cores", "python"} <= set(start)
    assert (start["runtime"], start["threads"], len(start["sha256"])) == ("litert", 2, 64)
    assert start["cores"] == sorted(os.sched_getaffinity(0))
    assert (start["python"] is None) == (runner.name == "native")
    if runner.name == "native":
        library = runner.job["library"]
        assert (start["runner"], start["library"]) == ("native", "libLiteRt.so")
        assert (start["version"], start["sha256"]) == (library["version"], library["sha256"])
    assert (before["when"], after["when"]) == ("before", "after")
    told = {"time", "clock_s", "load_1min", "running", "cpu_steal_s", "cpu_busy_s", "cpus", "own_s"}
    for event in (before, after):
        assert set(event) == {"event", "when", *told, "frequency_mhz", "temperature_c"}
        assert all(isinstance(event[name], int | float) for name in told)
        assert isinstance(event["running"], int)
        assert event["cpus"] == os.cpu_count()
    assert after["clock_s"] >= before["clock_s"]
    assert after["own_s"] >= before["own_s"]


def test_clocks_and_temperatures_come_from_the_tree_of_sysfs(runner: Runner, tmp_path: Path) -> None:
    for number, khz in ((0, "1804800\n"), (1, "junk"), (2, "2400000"), (10, "600500\n")):
        place = tmp_path / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        place.mkdir(parents=True)
        (place / "scaling_cur_freq").write_text(khz)
    (tmp_path / "sys/devices/system/cpu/cpufreq").mkdir()
    for number, heat, kind in ((0, "41500\n", 'cpu "big"\n'), (1, "-2000", ""), (2, "", "no heat"), (3, "0", None)):
        place = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        place.mkdir(parents=True)
        (place / "temp").write_text(heat)
        if kind is not None:
            (place / "type").write_text(kind)
    answer = runner.run(tmp_path, {"mode": "memory", "runs": 1, "cases": []}, SYSFS_PATH=str(tmp_path / "sys"))
    before = answer.of("conditions")[0]
    assert before["frequency_mhz"] == [1804.8, 600.5, 2400.0]
    heats = {'thermal_zone0:cpu "big"': 41.5, "thermal_zone1:unknown": -2.0, "thermal_zone3:unknown": 0.0}
    assert before["temperature_c"] == heats


def test_both_runners_answer_the_same_outputs(python: Runner, native: Runner, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    cases = [
        infer_case(tmp_path, "relu", written(RELU, tmp_path / "r.tflite"), random.standard_normal((37, 4, 4, 3), "f4")),
        infer_case(tmp_path, "conv", written(CONV, tmp_path / "c.tflite"), random.standard_normal((3, 4, 4, 3), "f4")),
        infer_case(tmp_path, "linear", written(LINEAR, tmp_path / "l.tflite"), random.standard_normal((2, 16), "f4")),
        infer_case(tmp_path, "two", two_outputs(tmp_path / "t.tflite"), random.standard_normal((2, 4, 4, 3), "f4")),
        infer_case(tmp_path, "free", free_batch(tmp_path / "f.tflite"), random.standard_normal((5, 4), "f4")),
        infer_case(
            tmp_path, "int8", quantized_linear(tmp_path / "q.tflite"), random.integers(-128, 127, (9, 16), "i1")
        ),
    ]
    for name in ("int8", "uint8", "int16", "int32", "int64", "float16", "bool"):
        values = np.abs(random.standard_normal((4, 2, 6)) * 20).astype(name)
        cases.append(
            infer_case(tmp_path, f"{name}-to", cast(tmp_path / f"{name}-to.tflite", name.upper(), "FLOAT32"), values)
        )
        floats = np.abs(random.standard_normal((4, 2, 6), "f4") * 20)
        cases.append(
            infer_case(tmp_path, f"to-{name}", cast(tmp_path / f"to-{name}.tflite", "FLOAT32", name.upper()), floats)
        )
    found: dict[str, dict[str, Array]] = {}
    for runner in (python, native):
        answer = runner.run(tmp_path, {"mode": "infer", "runs": 5, "cases": cases})
        assert answer.of("error") == []
        assert [event["case"] for event in answer.of("outputs")] == [case["id"] for case in cases]
        for event, case in zip(answer.of("outputs"), cases, strict=True):
            assert event["file"] == case["outputs"]
            assert event["count"] == len(np.load(case["inputs"]))
            assert event["peak_bytes"] is None or event["peak_bytes"] >= 0
            assert [e["done"] for e in answer.of("progress") if e["case"] == case["id"]][-1] == event["count"]
        found[runner.name] = {case["id"]: np.load(case["outputs"]) for case in cases}
        for case in cases:
            Path(case["outputs"]).unlink()
    for name, expected in found["python"].items():
        output = found["native"][name]
        assert (output.dtype, output.shape) == (expected.dtype, expected.shape), name
        if np.issubdtype(expected.dtype, np.floating):
            np.testing.assert_allclose(output, expected, rtol=1e-6, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(output, expected, err_msg=name)
    assert not list(tmp_path.glob("*.partial"))


ORDERS = {"interleaved": "ABABAB", "mirrored": "ABBAAB", "sequential": "AAABBB"}


@pytest.mark.parametrize("schedule", [*ORDERS, "shuffled"])
def test_visits_follow_the_schedule(runner: Runner, tmp_path: Path, relu: Path, linear: Path, schedule: str) -> None:
    cases = [{"id": "A", "model": str(relu)}, {"id": "B", "model": str(linear)}]
    answer = runner.run(tmp_path, {**TIMES, "schedule": schedule, "seed": 7, "cases": cases})
    assert answer.code == 0
    order = "".join(event["case"] for event in answer.of("samples"))
    if schedule == "shuffled":
        assert all(set(order[i : i + 2]) == {"A", "B"} for i in (0, 2, 4))
    else:
        assert order == ORDERS[schedule]
    assert [(e["case"], e["round"]) for e in answer.of("begin")] == [
        (e["case"], e["round"]) for e in answer.of("samples")
    ]
    assert [e["round"] for e in answer.of("samples") if e["case"] == "A"] == [0, 1, 2]
    assert sorted(e["case"] for e in answer.of("warm")) == ["A", "B"]
    for event in answer.of("warm"):
        assert set(event) == {"event", "case", "runs", "seconds", "steady"}
        assert (event["runs"], event["steady"]) == (2, None)
    for event in answer.of("samples"):
        assert set(event) == {"event", "case", "round", "seconds", "runs_per_sample", "preempted", "steal_s"}
        clean = len(event["seconds"]) - len(set(event["preempted"]))
        assert all(second > 0 for second in event["seconds"])
        assert all(0 <= place < len(event["seconds"]) for place in event["preempted"])
        assert isinstance(event["runs_per_sample"], int)
        assert event["runs_per_sample"] >= 1
        assert clean * event["runs_per_sample"] >= 2 or event["preempted"]
        assert event["steal_s"] is None or event["steal_s"] >= 0


def test_a_shuffled_order_depends_on_its_seed_alone(runner: Runner, tmp_path: Path, relu: Path) -> None:
    cases = [{"id": str(i), "model": str(relu)} for i in range(12)]
    orders = []
    for seed in (1, 1, 2):
        job = {**TIMES, "schedule": "shuffled", "rounds": 2, "seed": seed, "min_s": 0.0, "cases": cases}
        orders.append([event["case"] for event in runner.run(tmp_path, job).of("samples")])
        assert sorted(orders[-1][:12]) == sorted(orders[-1][12:]) == sorted(case["id"] for case in cases)
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:12] != orders[0][12:]


def test_a_case_goes_on_at_its_first_round(runner: Runner, tmp_path: Path, relu: Path, linear: Path) -> None:
    cases = [{"id": "A", "model": str(relu), "first_round": 2}, {"id": "B", "model": str(linear)}]
    answer = runner.run(tmp_path, {**TIMES, "cases": cases})
    assert [(e["case"], e["round"]) for e in answer.of("samples")] == [("B", 0), ("B", 1), ("A", 2), ("B", 2)]


def test_models_are_loaded_anew_where_they_are_not_kept(runner: Runner, tmp_path: Path, relu: Path) -> None:
    job = {
        **TIMES,
        "keep_loaded": False,
        "steady": 0.5,
        "warm_up_most_s": 0.05,
        "cases": [{"id": "A", "model": str(relu)}],
    }
    answer = runner.run(tmp_path, job)
    assert [event["event"] for event in answer.events if "case" in event] == ["begin", "warm", "samples"] * 3
    assert all(isinstance(event["steady"], bool) and event["runs"] >= 2 for event in answer.of("warm"))


def test_conditions_are_told_during_a_long_job(runner: Runner, tmp_path: Path, relu: Path) -> None:
    job = {**TIMES, "rounds": 4, "min_s": 0.4, "cases": [{"id": "A", "model": str(relu)}], "max_samples": 10**6}
    before, *during, after = runner.run(tmp_path, job).of("conditions")
    assert (before["when"], after["when"]) == ("before", "after")
    assert {event["when"] for event in during} == {"during"}
    times = [event["clock_s"] for event in during]
    assert all(later - sooner >= 0.99 for sooner, later in pairwise(times))  # once a second


def test_both_profilers_name_the_same_kernels(python: Runner, native: Runner, tmp_path: Path, relu: Path) -> None:
    conv = written(CONV, tmp_path / "conv.tflite")
    linear = written(OpSignature("linear", 16, 16, 1, 1), tmp_path / "linear4.tflite", times=4)
    cases = [{"id": path.stem, "model": str(path)} for path in (relu, conv, linear, sum_of_two(tmp_path / "s.tflite"))]
    names = {}
    for runner in (python, native):
        answer = runner.run(tmp_path, {"mode": "profile", "runs": 3, "warm_up_runs": 2, "cases": cases})
        assert answer.of("error") == []
        for event in answer.of("profile"):
            assert set(event) == {"event", "case", "names", "times_us", "whole_us"}
            assert [len(run) for run in event["times_us"]] == [len(event["names"])] * 3
            assert len(event["whole_us"]) == 3
            assert all(isinstance(t, int) for run in [*event["times_us"], event["whole_us"]] for t in run)
        names[runner.name] = {event["case"]: event["names"] for event in answer.of("profile")}
    assert names["native"] == names["python"]
    assert len(names["native"]["linear4"]) == 4


def test_memory_of_a_larger_model_is_larger(runner: Runner, tmp_path: Path) -> None:
    peaks = []
    for channels in (16, 1024):
        model = written(OpSignature("linear", channels, channels), tmp_path / f"{channels}.tflite")
        job = {"mode": "memory", "runs": 2, "cases": [{"id": "a", "model": str(model)}]}
        (event,) = runner.run(tmp_path, job).of("memory")
        peaks.append(event["peak_bytes"])
    if None in peaks:
        pytest.skip("this kernel does not restart the high-water mark")
    assert peaks[1] - peaks[0] > 4 * 1024**2 * 0.9  # the weights, 4 MiB


@pytest.mark.parametrize("mode", ["time", "infer", "memory", "profile"])
def test_a_file_that_is_no_model_leaves_the_next_case_alone(
    runner: Runner, tmp_path: Path, relu: Path, mode: str
) -> None:
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"not a model at all")
    models = {"bad": bad, "missing": tmp_path / "missing.tflite", "good": relu}
    inputs = np.zeros((2, 4, 4, 3), np.float32)
    cases = [infer_case(tmp_path, name, model, inputs) for name, model in models.items()]
    head = TIMES if mode == "time" else {"mode": mode, "runs": 2, "warm_up_runs": 1}
    answer = runner.run(tmp_path, {**head, "cases": cases})
    assert answer.code == 0
    assert [event["case"] for event in answer.of("error")] == ["bad", "missing"]  # once each, in all rounds
    for event in answer.of("error"):
        assert set(event) == {"event", "case", "kind", "message"}
        assert event["kind"] == "load" or (mode == "profile" and event["kind"] == "run")
        assert event["message"]
    result = {"time": "samples", "infer": "outputs"}.get(mode, mode)
    assert {event["case"] for event in answer.of(result)} == {"good"}
    assert answer.events[-1]["event"] == "end"
