"""The app for iPhones speaks the runners' language: its framework-free part, compiled and run here where Swift is,
beside the Python and the native runner. Core ML itself is in no test: App/ is only looked at by the compiler, against
declarations of our own (apple_declarations) in the place of Apple's.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.devices.bundle import native_bundle
from edgeprune.devices.cargo import pack
from edgeprune.devices.conditions import Conditions
from edgeprune.devices.jobs import Case, Job, Timing, _Progress
from edgeprune.devices.local import LocalDevice
from edgeprune.devices.phone_app import sources
from edgeprune.errors import ToolkitMissing
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_writer import write_operation

HERE = Path(__file__).parent
APP = HERE.parents[1] / "apps/runner/apple"
TIMES: dict[str, Any] = {
    "mode": "time",
    "schedule": "interleaved",
    "rounds": 3,
    "keep_loaded": True,
    "warm_up_runs": 2,
    "warm_up_s": 0.0,
    "min_runs": 2,
    "min_s": 0.0005,
    "max_samples": 8,
}


def run(command: list[str], folder: Path, job: dict[str, Any] | bytes) -> tuple[int, list[dict[str, Any]]]:
    """(exit code, the lines as its file holds them, which are those of the console)."""
    path = folder / "job.json"
    full = {"version": 1, "runtime": "coreml", "threads": 1}
    path.write_bytes(job if isinstance(job, bytes) else json.dumps({**full, **job}).encode())
    done = subprocess.run([*command, "job.json"], cwd=folder, capture_output=True, timeout=120, check=False)
    lines = (folder / "job.json.lines").read_text(encoding="ascii").splitlines()
    console = done.stdout.decode("ascii").splitlines()
    assert console == [f"@edgeprune {number} {line}" for number, line in enumerate(lines)]
    return done.returncode, [json.loads(line) for line in lines]


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def toy(folder: Path, name: str = "toy.txt", what: str = "relu float32 1 4 4 3") -> str:
    (folder / name).write_text(what)
    return name


def test_its_lines_are_those_of_the_other_runners(swift_app: list[str], tmp_path: Path) -> None:
    odd = 'it\'s "odd" \\ \n\t é 模型 😀'
    job = {**TIMES, "cases": [{"id": odd, "model": toy(tmp_path)}, {"id": "bad", "model": "none"}]}
    code, events = run(swift_app, tmp_path, job)
    assert code == 0
    assert {"runtime", "version", "library", "sha256", "threads", "cores", "python"} <= set(events[0])
    assert [e["round"] for e in of(events, "samples")] == [0, 1, 2]
    for event in of(events, "samples"):
        assert set(event) == {"event", "case", "round", "seconds", "runs_per_sample", "preempted", "steal_s"}
        assert event["case"] == odd
        assert 1 <= len(event["seconds"]) <= 8
        assert all(seconds > 0 for seconds in event["seconds"])
    assert set(of(events, "warm")[0]) == {"event", "case", "runs", "seconds", "steady"}
    (error,) = of(events, "error")
    assert (error["case"], error["kind"]) == ("bad", "load")
    assert [e["event"] for e in events[-3:]] == ["conditions", "end", "exit"]
    assert events[-1] == {"event": "exit", "code": 0, "message": ""}


@pytest.mark.parametrize(
    ("schedule", "order"), [("interleaved", "ABABAB"), ("mirrored", "ABBAAB"), ("sequential", "AAABBB")]
)
def test_cases_are_visited_in_the_order_of_the_schedule(
    swift_app: list[str], tmp_path: Path, schedule: str, order: str
) -> None:
    cases = [{"id": name, "model": toy(tmp_path)} for name in "AB"]
    _, events = run(swift_app, tmp_path, {**TIMES, "schedule": schedule, "cases": cases})
    assert "".join(event["case"] for event in of(events, "samples")) == order
    cases[1]["first_round"] = 2
    _, events = run(swift_app, tmp_path, {**TIMES, "schedule": schedule, "cases": cases})
    assert [event["round"] for event in of(events, "samples") if event["case"] == "B"] == [2]


def test_a_shuffled_schedule_is_the_native_runners(swift_app: list[str], tmp_path: Path) -> None:
    try:
        bundle = native_bundle("x86_64", cache=tmp_path / "bundles")
    except ToolkitMissing as error:
        pytest.skip(str(error))
    write_operation(OpSignature("activation", 3, 3, 4, 4, function="relu"), tmp_path / "relu.tflite")
    head = {**TIMES, "schedule": "shuffled", "rounds": 6, "seed": 12345, "keep_loaded": False}
    library = {"path": str(bundle.files[bundle.library]), "version": "0", "sha256": "0" * 64}
    native_job = {"version": 1, "runtime": "litert", "threads": 1, "library": library, **head}
    native_job["cases"] = [{"id": str(n), "model": "relu.tflite"} for n in range(7)]
    (tmp_path / "native.json").write_text(json.dumps(native_job))
    folder = bundle.files[bundle.library].parent
    native = subprocess.run(
        [str(folder / word[2:]) if word.startswith("./") else word for word in bundle.command] + ["native.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    cases = [{"id": str(n), "model": toy(tmp_path)} for n in range(7)]
    _, events = run(swift_app, tmp_path, {**head, "cases": cases})
    expected = of([json.loads(line) for line in native.stdout.splitlines()], "samples")
    assert [(e["case"], e["round"]) for e in of(events, "samples")] == [(e["case"], e["round"]) for e in expected]


def test_half_floats_are_rounded_as_numpy_does(swift_app: list[str]) -> None:
    """SplitMix64 and Box and Muller once more, in numpy's arithmetic."""
    done = subprocess.run([*swift_app, "values", "7", "200"], capture_output=True, text=True, check=True)
    state, found = 7, []

    def bits() -> int:
        nonlocal state
        state = z = (state + 0x9E3779B97F4A7C15) % 2**64
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) % 2**64
        return z ^ z >> 31

    for _ in range(200):
        first, second = (((bits() >> 11) + 1) / 2**53 for _ in range(2))
        found.append(np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * second))
    assert [int(word) for word in done.stdout.split()] == np.array(found).astype(np.float16).view(np.uint16).tolist()


def test_outputs_are_saved_row_by_row(swift_app: list[str], tmp_path: Path) -> None:
    """Also where the model's own rows lie apart, as the stand-in's do."""
    values = np.random.default_rng(0).standard_normal((37, 4, 4, 3), dtype=np.float32)
    np.save(tmp_path / "in.npy", values)
    with (tmp_path / "newer.npy").open("wb") as stream:
        np.lib.format.write_array(stream, values, version=(2, 0))
    cases = [
        {"id": name, "model": toy(tmp_path), "inputs": f"{name}.npy", "outputs": f"{name}-out.npy"}
        for name in ("in", "newer")
    ]
    code, events = run(swift_app, tmp_path, {"mode": "infer", "runs": 5, "cases": cases})
    assert code == 0
    assert of(events, "error") == []
    for event in of(events, "outputs"):
        output = tmp_path / event["file"]
        np.testing.assert_array_equal(np.load(output), np.maximum(values, 0))
        assert event["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
        assert (event["count"], event["peak_bytes"] >= 0) == (37, True)
    assert [e["done"] for e in of(events, "progress")][-1] == 37
    assert not list(tmp_path.glob("*.partial"))


def test_several_inputs_and_outputs_go_by_their_names(swift_app: list[str], tmp_path: Path) -> None:
    a, b = np.random.default_rng(1).standard_normal((2, 6, 4, 3), dtype=np.float32)
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    np.save(tmp_path / "short.npy", b[:-1])
    names = {"input_names": ["b", "a"], "output_names": ["larger", "difference"]}
    good = {
        "model": toy(tmp_path, "both.txt", "both float32 1 4 3"),
        "inputs": "b.npy",
        "more_inputs": ["a.npy"],
        **names,
    }
    changes: dict[str, dict[str, Any]] = {
        "none": {},
        "one": {"output_names": ["difference"]},
        "count": {"more_inputs": []},
        "no order of inputs": {"input_names": None},
        "no order of outputs": {"output_names": None},
        "names": {"input_names": ["a"]},
        "no such input": {"input_names": ["a", "c"]},
        "no such output": {"output_names": ["larger", "larger"]},
        "rows": {"more_inputs": ["short.npy"]},
    }
    cases = [{**good, **change, "id": name, "outputs": f"{name}.out"} for name, change in changes.items()]
    _, events = run(swift_app, tmp_path, {"mode": "infer", "runs": 5, "cases": cases})
    first, second = of(events, "outputs")
    files = [first["file"], *first["more_files"]]
    assert files == ["none.out", "none.out.1"]
    np.testing.assert_array_equal(np.load(tmp_path / files[0]), np.maximum(a, b))
    np.testing.assert_array_equal(np.load(tmp_path / files[1]), a - b)
    sums = [hashlib.sha256((tmp_path / file).read_bytes()).hexdigest() for file in files]
    assert [first["sha256"], *first["more_sha256"]] == sums
    assert "more_files" not in second
    np.testing.assert_array_equal(np.load(tmp_path / second["file"]), a - b)
    said = {event["case"]: (event["kind"], event["message"]) for event in of(events, "error")}
    assert set(said) == set(changes) - {"none", "one"}
    assert {kind for kind, _ in said.values()} == {"input"}
    assert "it has difference, larger" in said["no such output"][1]
    _, events = run(swift_app, tmp_path, {"mode": "memory", "runs": 1, "cases": [{"id": "m", "model": good["model"]}]})
    assert len(of(events, "memory")) == 1


def damaged(folder: Path) -> dict[str, str]:
    """Inputs that do not fit -> a word of what is said, in the native runner's words where it says the same."""
    zeros = np.zeros((2, 4, 4, 3), np.float32)
    arrays = {
        "layout": (np.zeros((2, 3, 4, 4), np.float32), "float32 (2, 3, 4, 4), the file takes float32 (1, 4, 4, 3)"),
        "double": (zeros.astype(np.float64), "float64 (2, 4, 4, 3), the file takes float32"),
        "flag": (zeros.astype(np.bool_), "|b1, which no array of Core ML is"),
        "none": (np.zeros((0, 4, 4, 3), np.float32), "float32 (0, 4, 4, 3)"),
        "flat": (np.zeros((48,), np.float32), "float32 (48,)"),
        "turned": (np.asfortranarray(zeros), "C order"),
        "foreign": (zeros.astype(">f4"), "the inputs are >f4"),
        "cut": (zeros, "ends before its last row"),
    }
    for name, (array, _) in arrays.items():
        np.save(folder / f"{name}.npy", array)
    cut = folder / "cut.npy"
    cut.write_bytes(cut.read_bytes()[:-5])
    (folder / "junk.npy").write_bytes(b"junk")
    (folder / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\xff\xff{'descr'")
    found = {name: words for name, (_, words) in arrays.items()}
    return {**found, "junk": "no header", "header": "ends in its header", "missing": "No such file"}


def test_inputs_that_do_not_fit_are_an_error_of_their_case(swift_app: list[str], tmp_path: Path) -> None:
    wrong = damaged(tmp_path)
    np.save(tmp_path / "good.npy", np.ones((1, 4, 4, 3), np.float32))
    cases = [
        {"id": name, "model": toy(tmp_path), "inputs": f"{name}.npy", "outputs": f"{name}-out.npy"}
        for name in (*wrong, "good")
    ]
    code, events = run(swift_app, tmp_path, {"mode": "infer", "runs": 1, "cases": cases})
    assert code == 0
    said = {event["case"]: event["message"] for event in of(events, "error")}
    assert set(said) == set(wrong)
    for name, words in wrong.items():
        assert words in said[name], name
    assert {event["kind"] for event in of(events, "error")} == {"input"}
    assert [event["case"] for event in of(events, "outputs")] == ["good"]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (b"", "no JSON"),
        (b"[]", "another kind"),
        (b'{"version": 99}', "jobs of version 1, not 99"),
        (b'{"version": "1"}', "`version` is of another kind"),
        ({"mode": "guess", "cases": []}, "`mode` is none that this runner knows"),
        ({"mode": "memory", "runs": 1.5, "cases": []}, "a number in it is of another kind"),
        ({"mode": "memory", "runs": 1, "cases": [{"id": 3}]}, "`id` is of another kind"),
        ({"mode": "memory", "runs": 1, "cases": 0}, "`cases`"),
        ({"mode": "infer", "runs": 1, "cases": [{"id": "a", "model": "b"}]}, "`inputs` or `outputs`"),
        ({"mode": "memory", "runs": 1, "cases": [], "compute_units": "NPU"}, "`compute_units` is none"),
        ({**TIMES, "max_samples": 0, "cases": []}, "`max_samples`"),
    ],
)
def test_an_unreadable_job_is_refused_by_the_name_of_its_member(
    swift_app: list[str], tmp_path: Path, job: Any, words: str
) -> None:
    code, events = run(swift_app, tmp_path, job)
    assert (code, [event["event"] for event in events]) == (2, ["exit"])
    assert words in events[0]["message"]


def test_what_it_does_not_have_is_refused(swift_app: list[str], tmp_path: Path) -> None:
    code, events = run(swift_app, tmp_path, {"runtime": "litert", "mode": "memory", "runs": 1, "cases": []})
    assert (code, events[0]["message"]) == (3, "the runtime litert is not installed here: this app has coreml")
    code, events = run(swift_app, tmp_path, {"mode": "memory", "runs": 1, "cases": [], "cores": [1]})
    assert code == 4
    refuses = {"id": "a", "model": toy(tmp_path, "no.txt", "refuse float32 1 2")}
    _, events = run(swift_app, tmp_path, {"mode": "memory", "runs": 1, "cases": [refuses]})
    assert of(events, "error")[0]["kind"] == "run"


def test_a_package_is_unpacked_and_a_damaged_one_refused(swift_app: list[str], tmp_path: Path) -> None:
    package = tmp_path / "net.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "toy.txt").write_text("relu float32 1 2")
    (package / "Data/weights.bin").write_bytes(b"\x00\xff" * 70_000)
    pack(package, tmp_path / "good.zip")
    whole = (tmp_path / "good.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    (tmp_path / "bad.zip").write_bytes(whole.replace(b"net.mlpackage/toy.txt", b"net.mlpackag/../y.txt"))
    cases = [{"id": name, "model": f"{name}.zip"} for name in ("good", "cut", "bad", "missing")]
    _, events = run(swift_app, tmp_path, {"mode": "memory", "runs": 1, "cases": cases})
    assert [event["case"] for event in of(events, "memory")] == ["good"]
    assert [event["kind"] for event in of(events, "error")] == ["load"] * 3
    unpacked = tmp_path / "good.zip.unpacked/net.mlpackage/Data/weights.bin"
    assert unpacked.read_bytes() == (package / "Data/weights.bin").read_bytes()


def test_checksums_of_every_length(swift_app: list[str], tmp_path: Path) -> None:
    sizes = [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 128, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 77]
    expected = {}
    for size in sizes:
        data = np.random.default_rng(size).bytes(size)
        (tmp_path / f"{size}").write_bytes(data)
        expected[str(size)] = hashlib.sha256(data).hexdigest()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x").write_text("x")
    for name in ("folder-1", "folder-2", "stays"):
        (tmp_path / name).write_text("x")
    job = {"mode": "files", "sums": [*expected, "none"], "remove": ["folder", "folder-*", "nothing*"]}
    code, events = run(swift_app, tmp_path, job)
    assert code == 0
    assert {event["path"]: event["sha256"] for event in of(events, "sum")} == expected
    assert of(events, "free")[0]["bytes"] == 12_345_678
    assert not list(tmp_path.glob("folder*"))
    assert (tmp_path / "stays").exists()


def test_the_whole_app_is_looked_at_by_the_compiler(swift: list[str], tmp_path: Path) -> None:
    """Against our own declarations of what it uses of Apple's: what they say wrongly, this does not find."""
    for name in ("CoreML", "UIKit", "SwiftUI"):
        command = ["swiftc", "-emit-module", "-module-name", name, "-parse-as-library"]
        file = HERE / f"apple_declarations/{name}.swift"
        done = subprocess.run(
            [*swift, *command, str(file), "-o", str(tmp_path / f"{name}.swiftmodule")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    files = [str(path) for path in sources() if path.suffix == ".swift"]
    command = ["swiftc", "-typecheck", "-swift-version", "5", "-warnings-as-errors", "-module-name", "EdgePruneRunner"]
    done = subprocess.run([*swift, *command, "-I", str(tmp_path), *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Without Swift: the names, by reading.


def test_it_reads_what_jobs_say() -> None:
    """Every member of a job and of its cases is a coding key, or is left alone on purpose."""
    text = (APP / "Core/Job.swift").read_text()
    keys = {name for line in re.findall(r"^\s*case ([\w, ]+)$", text, re.MULTILINE) for name in line.split(", ")}
    keys |= set(re.findall(r'= "(\w+)"', text))
    timing = Timing("interleaved", 3, True, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.0, max_samples=16)
    said: set[str] = set()
    for job in (Job("coreml", (Case("a", HERE),), timing=timing, cores=(1,)), Job("coreml", (Case("a", HERE),))):
        said |= set(_Progress(LocalDevice(), job, "jobs/x", 1.0, None)._head())
    several = {"more_inputs", "input_names", "output_names"}
    assert said | several | {"cases", "id", "model", "inputs", "outputs", "first_round"} <= keys


def test_it_tells_every_condition() -> None:
    text = (APP / "App/Phone.swift").read_text()
    assert set(Conditions.model_fields) <= set(re.findall(r'\("(\w+)", \.', text)) | {"charging"}
