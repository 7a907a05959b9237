"""What the runners refuse, each in its words, and what they survive: damaged inputs, odd names, a lost listener."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from two_runners import (
    ODD,
    OTHER_ABI,
    TIMES,
    Job,
    Runner,
    bundle_or_skip,
    infer_case,
    saved,
    sum_of_two,
)


def test_both_runners_refuse_inputs_that_do_not_fit_in_the_same_words(
    python: Runner, native: Runner, tmp_path: Path, relu: Path
) -> None:
    wrong = {
        "layout": np.zeros((2, 3, 4, 4), np.float32),
        "double": np.zeros((2, 4, 4, 3), np.float64),
        "integer": np.zeros((2, 4, 4, 3), np.int8),
        "flag": np.zeros((2, 4, 4, 3), np.bool_),
        "none": np.zeros((0, 4, 4, 3), np.float32),
        "flat": np.zeros((48,), np.float32),
        "scalar": np.zeros((1, 4, 4, 3, 1), np.float32),
    }
    cases = [infer_case(tmp_path, name, relu, array) for name, array in wrong.items()]
    two = sum_of_two(tmp_path / "sum.tflite")
    cases.append(infer_case(tmp_path, "two", two, np.zeros((1, 4), np.float32)))
    cases.append(infer_case(tmp_path, "good", relu, np.ones((1, 4, 4, 3), np.float32)))
    said = {}
    for runner in (python, native):
        answer = runner.run(tmp_path, {"mode": "infer", "runs": 1, "cases": cases})
        assert [event["case"] for event in answer.of("outputs")] == ["good"]
        assert {event["kind"] for event in answer.of("error")} == {"input"}
        said[runner.name] = {event["case"]: event["message"] for event in answer.of("error")}
    assert said["native"] == said["python"]
    assert said["native"]["layout"] == "the inputs are float32 (2, 3, 4, 4), the file takes float32 (1, 4, 4, 3)"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def turned(path: Path) -> None:
    np.save(path, np.asfortranarray(np.zeros((2, 4, 4, 3), np.float32)))


def foreign(path: Path) -> None:
    np.save(path, np.zeros((2, 4, 4, 3), ">f4"))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut, "ends before its last row"),
        (turned, "C order"),
        (foreign, "the inputs are >f4"),
        (lambda path: path.write_bytes(b"junk"), "no header"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff{'descr'"), "ends in its header"),
        (Path.unlink, "No such file"),
    ],
)
def test_damaged_inputs_are_an_error_of_their_case(
    native: Runner, tmp_path: Path, relu: Path, damage: Callable[[Path], None], why: str
) -> None:
    cases = [infer_case(tmp_path, name, relu, np.zeros((2, 4, 4, 3), np.float32)) for name in ("bad", "good")]
    damage(Path(cases[0]["inputs"]))
    answer = native.run(tmp_path, {"mode": "infer", "runs": 1, "cases": cases})
    (error,) = answer.of("error")
    assert (error["case"], error["kind"]) == ("bad", "input")
    assert why in error["message"]
    assert [event["case"] for event in answer.of("outputs")] == ["good"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_newer_npy_header_is_read(native: Runner, tmp_path: Path, relu: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 4, 3), "f4")
    case = infer_case(tmp_path, "a", relu, values)
    with Path(case["inputs"]).open("wb") as stream:
        np.lib.format.write_array(stream, values, version=(2, 0))
    assert native.run(tmp_path, {"mode": "infer", "runs": 1, "cases": [case]}).of("error") == []
    np.testing.assert_array_equal(np.load(case["outputs"]), np.maximum(values, 0))


def test_a_job_of_another_version_is_refused(runner: Runner, tmp_path: Path) -> None:
    answer = runner.run(tmp_path, {"version": 99, "mode": "memory", "cases": []})
    assert (answer.code, answer.events) == (2, [])
    assert "jobs of version 1, not 99" in answer.stderr


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 1}', '{"version": "1"}', '{"version": 1} x', '{"version": 01}', "[" * 100_000, "\xff"],
)
def test_an_unreadable_job_is_refused(native: Runner, tmp_path: Path, text: str) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(text.encode("latin-1"))
    done = subprocess.run([*native.argv, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "job.json: " in done.stderr


@pytest.mark.parametrize(
    "change", [{"mode": "guess"}, {"threads": 0}, {"cases": [{"id": 3}]}, {"runs": 1.5}, {"library": {}}, {"cases": 0}]
)
def test_a_job_with_a_wrong_member_is_refused_by_its_name(native: Runner, tmp_path: Path, change: Job) -> None:
    answer = native.run(tmp_path, {"mode": "memory", "runs": 1, "cases": [], **change})
    assert (answer.code, answer.events) == (2, [])
    assert "`" in answer.stderr


def test_cores_are_taken_or_refused(runner: Runner, tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    answer = runner.run(tmp_path, {"mode": "memory", "runs": 1, "cases": [], "cores": [core]})
    assert answer.of("start")[0]["cores"] == [core]
    answer = runner.run(tmp_path, {"mode": "memory", "runs": 1, "cases": [], "cores": [1000]})
    assert (answer.code, answer.events) == (4, [])
    assert "1000" in answer.stderr


@pytest.mark.parametrize("kind", ["missing", "junk", "foreign", "other"])
def test_a_library_that_does_not_load_is_exit_code_3(native: Runner, tmp_path: Path, cache: Path, kind: str) -> None:
    place = tmp_path / "libLiteRt.so"
    if kind == "junk":
        place.write_bytes(b"\x7fELF junk")
    elif kind == "foreign":
        bundle = bundle_or_skip(OTHER_ABI, cache)
        shutil.copyfile(bundle.files[bundle.library], place)
    elif kind == "other":  # a library of this machine that is not LiteRT's
        maps = Path("/proc/self/maps").read_text(encoding="utf-8").split()
        shutil.copyfile(next(word for word in maps if "/libm.so" in word or "/libm-" in word), place)
    library = {**native.job["library"], "path": "libLiteRt.so"}  # relative to the working directory
    answer = native.run(tmp_path, {"mode": "memory", "runs": 1, "cases": [], "library": library})
    assert (answer.code, answer.events) == (3, [])
    said = {"foreign": "it is for ELF machine", "other": "it has no LiteRt"}.get(kind, "libLiteRt.so")
    assert said in answer.stderr


def test_a_runner_that_nobody_listens_to_ends(runner: Runner, tmp_path: Path, relu: Path) -> None:
    path = tmp_path / "job.json"
    job = {**TIMES, "rounds": 10**6, "min_s": 0.01, "cases": [{"id": "a", "model": str(relu)}]}
    path.write_text(json.dumps({"version": 1, "runtime": "litert", "threads": 1, **runner.job, **job}))
    process = subprocess.Popen([*runner.argv, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "start"
        process.stdout.close()
        assert process.wait(timeout=30) != 0
    finally:
        process.kill()
        process.wait()


def test_odd_names_survive(runner: Runner, tmp_path: Path, relu: Path) -> None:
    folder = tmp_path / ODD.replace("/", "_")
    folder.mkdir()
    model = folder / ("m " + ODD + ".tflite")
    shutil.copyfile(relu, model)
    values = np.random.default_rng(0).standard_normal((2, 4, 4, 3), "f4")
    saved(values, folder / "in.npy")
    outputs = folder / ("o " + ODD + ".npy")
    case = {"id": ODD, "model": str(model), "inputs": str(folder / "in.npy"), "outputs": str(outputs)}
    answer = runner.run(folder, {"mode": "infer", "runs": 1, "cases": [case]})
    assert answer.of("error") == []
    assert {event["case"] for event in answer.events if "case" in event} == {ODD}
    assert answer.of("outputs")[0]["file"] == str(outputs)
    np.testing.assert_array_equal(np.load(outputs), np.maximum(values, 0))
    assert not list(tmp_path.rglob("owned"))


def test_file_names_that_are_no_text_survive(native: Runner, tmp_path: Path, relu: Path) -> None:
    model = os.fsencode(tmp_path) + b"/caf\xe9.tflite"
    shutil.copyfile(relu, model)
    case = {"id": os.fsdecode(b"caf\xe9"), "model": os.fsdecode(model)}
    answer = native.run(tmp_path, {"mode": "memory", "runs": 1, "cases": [case]})
    assert [event["case"] for event in answer.of("memory")] == [os.fsdecode(b"caf\xe9")]


def test_thousands_of_loads_do_not_fill_the_memory(native: Runner, tmp_path: Path, linear: Path) -> None:
    peaks = []
    for rounds in (50, 550):
        job = {
            **TIMES,
            "keep_loaded": False,
            "rounds": rounds,
            "min_s": 0.0,
            "cases": [{"id": "a", "model": str(linear)}],
        }
        path = tmp_path / "job.json"
        path.write_text(json.dumps({"version": 1, "runtime": "litert", "threads": 1, **native.job, **job}))
        null = os.open(os.devnull, os.O_WRONLY)
        moves = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
        pid = os.posix_spawn(native.argv[0], [*native.argv, str(path)], os.environ, file_actions=moves)
        os.close(null)
        _, status, usage = os.wait4(pid, 0)
        assert status == 0
        peaks.append(usage.ru_maxrss)
    assert peaks[1] - peaks[0] < 3000  # KiB in 500 loads: less than 6 KiB for each
