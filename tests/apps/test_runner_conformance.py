"""The runners speak one language: the same jobs to the Python runner and to the native one, and what they answer.

No time is judged here. With EDGEPRUNE_REQUIRE_LAB=1 a bundle that cannot be built is a failure, not a skip.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgeprune.devices.bundle import Bundle, native_bundle, needed_libraries, sources
from edgeprune.devices.runners import runner_script
from edgeprune.errors import ToolkitMissing
from edgeprune.latency.tflite_writer import Graph, write_operation
from edgeprune.structure.operations import OpSignature

Array = npt.NDArray[Any]
Job = dict[str, Any]
OWN_ABI = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
OTHER_ABI = "aarch64" if OWN_ABI == "x86_64" else "x86_64"
RELU = OpSignature("activation", 3, 3, 4, 4, function="relu")
LINEAR = OpSignature("linear", 16, 8, 1, 1)
CONV = OpSignature("conv2d", 3, 8, 4, 4, (3, 3), (1, 1), (1, 1))
TIMES: Job = {
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
ODD = 'it\'s "odd" \\ ; $(touch owned) `x` \n\t é 模型 😀 {}%s'


@dataclass(frozen=True)
class Answer:
    """What a runner answered."""

    events: list[dict[str, Any]]
    code: int
    stderr: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


@dataclass(frozen=True)
class Runner:
    """A runner on this machine."""

    name: str
    argv: tuple[str, ...]
    job: Job

    def run(self, folder: Path, job: Job, **environment: str) -> Answer:
        """Run a job; every line it writes on stdout has to be one of ours."""
        path = folder / "job.json"
        path.write_text(json.dumps({"version": 1, "runtime": "litert", "threads": 1, **self.job, **job}))
        done = subprocess.run(
            [*self.argv, str(path)],
            capture_output=True,
            timeout=120,
            cwd=folder,
            env={**os.environ, **environment},
            check=False,
        )
        lines = done.stdout.decode("ascii").splitlines()
        return Answer([json.loads(line) for line in lines], done.returncode, done.stderr.decode(errors="replace"))


def bundle_or_skip(abi: str, cache: Path) -> Bundle:
    try:
        return native_bundle(abi, cache=cache)
    except ToolkitMissing as error:
        if os.environ.get("EDGEPRUNE_REQUIRE_LAB") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def native(cache: Path) -> Runner:
    if sys.platform != "linux":
        pytest.skip("the native runner is for Linux")
    bundle = bundle_or_skip(OWN_ABI, cache)
    folder = bundle.files[bundle.library].parent
    words = (str(folder) if w == "." else str(folder / w[2:]) if w.startswith("./") else w for w in bundle.command)
    library = {
        "path": str(bundle.files[bundle.library]),
        "version": bundle.version,
        "sha256": bundle.library_sha256,
    }
    return Runner("native", tuple(words), {"library": library})


@pytest.fixture(scope="module")
def python() -> Runner:
    return Runner("python", (sys.executable, "-u", str(runner_script())), {})


@pytest.fixture(params=["python", "native"])
def runner(request: pytest.FixtureRequest) -> Runner:
    found: Runner = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    return written(RELU, tmp_path / "relu.tflite")


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return written(LINEAR, tmp_path / "linear.tflite")


def written(op: OpSignature, path: Path, times: int = 1) -> Path:
    write_operation(op, path, times=times)
    return path


def cast(path: Path, source: str, target: str) -> Path:
    """A model that changes the type of its elements."""
    graph = Graph()
    x = graph.input((1, 2, 6))
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = getattr(schema.TensorType, source), getattr(schema.TensorType, target)
    y = graph.add("CAST", [x], (1, 2, 6), options)
    graph.output(y)
    graph._graph.tensors[x].type, graph._graph.tensors[y].type = options.inDataType, options.outDataType
    path.write_bytes(graph.to_bytes())
    return path


def quantized_linear(path: Path) -> Path:
    """A fully connected layer in int8."""
    graph, random = Graph(), np.random.default_rng(3)
    x = graph.input((1, 16))
    graph._buffers.append(random.integers(-127, 127, (8, 16), dtype=np.int8))
    weights = graph._tensor((8, 16), len(graph._buffers) - 1, schema.TensorType.INT8)
    bias = graph.constant(random.integers(-500, 500, 8, dtype=np.int32))
    y = graph.add("FULLY_CONNECTED", [x, weights, bias], (1, 8), schema.FullyConnectedOptionsT(), version=4)
    graph.output(y)
    for tensor, scale, zero in ((x, 0.05, 3), (weights, 0.01, 0), (bias, 0.0005, 0), (y, 0.08, -5)):
        entry = graph._graph.tensors[tensor]
        entry.type = schema.TensorType.INT32 if tensor == bias else schema.TensorType.INT8
        entry.quantization = schema.QuantizationParametersT()
        entry.quantization.scale, entry.quantization.zeroPoint = [scale], [zero]
    path.write_bytes(graph.to_bytes())
    return path


def two_outputs(path: Path) -> Path:
    """A model whose signature has its two outputs in another order than its graph."""
    graph = Graph()
    x = graph.input((1, 4, 4, 3))
    first, second = graph.add("RELU", [x], (1, 4, 4, 3)), graph.add("TANH", [x], (1, 4, 4, 3))
    graph.output(first)
    graph.output(second)
    model = schema.ModelT.InitFromPackedBuf(graph.to_bytes())
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    names = (("x", x),), (("a", second), ("b", first))
    signature.inputs, signature.outputs = ([named(*pair) for pair in side] for side in names)
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def named(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry


def free_batch(path: Path) -> Path:
    """A model whose batch is left open, written with a batch of 1."""
    graph = Graph()
    x = graph.input((1, 4))
    y = graph.add("TANH", [x], (1, 4))
    graph.output(y)
    for tensor in (x, y):
        graph._graph.tensors[tensor].shapeSignature = [-1, 4]
    path.write_bytes(graph.to_bytes())
    return path


def sum_of_two(path: Path) -> Path:
    graph = Graph()
    x, y = graph.input((1, 4)), graph.input((1, 4))
    graph.output(graph.add("ADD", [x, y], (1, 4), schema.AddOptionsT()))
    path.write_bytes(graph.to_bytes())
    return path


def saved(array: Array, path: Path) -> str:
    np.save(path, array, allow_pickle=False)
    return str(path)


def infer_case(folder: Path, name: str, model: Path, inputs: Array) -> dict[str, str]:
    place = saved(inputs, folder / f"{name}-in.npy")
    return {"id": name, "model": str(model), "inputs": place, "outputs": str(folder / f"{name}-out.npy")}


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


def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    files = [str(path) for path in sources() if path.suffix == ".c"]
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *flags, "-o", str(tmp_path / "runner"), *files, "-ldl", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("abi", ["x86_64", "aarch64"])
def test_a_bundle_is_whole_small_and_built_once(cache: Path, abi: str) -> None:
    bundle = bundle_or_skip(abi, cache)
    assert all(path.is_file() and os.access(path, os.X_OK) for path in bundle.files.values())
    assert sum(path.stat().st_size for path in bundle.files.values()) <= 20e6
    assert bundle.library in bundle.files
    machines = {needed_libraries(path)[0] for path in bundle.files.values()}
    assert machines == {183 if abi == "aarch64" else 62}
    if abi == "aarch64":
        needed = {name for path in bundle.files.values() for name in needed_libraries(path)[1]}
        assert needed <= set(bundle.files)
        assert bundle.command[0] == "./ld-linux-aarch64.so.1"
    times = [path.stat().st_mtime_ns for path in bundle.files.values()]
    again = native_bundle(abi, cache=cache)
    assert (again, again.key) == (bundle, bundle.key)
    assert [path.stat().st_mtime_ns for path in again.files.values()] == times


def test_a_damaged_bundle_is_built_anew(cache: Path) -> None:
    bundle = bundle_or_skip(OWN_ABI, cache)
    key = bundle.key
    path = bundle.files["edgeprune-runner"]
    path.write_bytes(path.read_bytes()[:1000])
    again = native_bundle(OWN_ABI, cache=cache)
    assert again.key == key
    assert sorted(p.name for p in cache.iterdir() if p.name.startswith(".")) == []


def test_what_a_bundle_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolkitMissing, match="riscv64"):
        native_bundle("riscv64", cache=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("edgeprune.devices.bundle.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolkitMissing, match=r"gcc-aarch64-linux-gnu` or `pip install ziglang"):
        native_bundle("aarch64", cache=tmp_path)


def test_a_wheel_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no compiler for aarch64 here")
    wheel = tmp_path / "ai_edge_litert-0.0.1-cp311-cp311-manylinux_2_27_aarch64.whl"
    wheel.write_bytes(b"no wheel")
    monkeypatch.setenv("EDGEPRUNE_LITERT_WHEEL_AARCH64", str(wheel))
    with pytest.raises(ToolkitMissing, match="cannot be used"):
        native_bundle("aarch64", cache=tmp_path / "cache")
