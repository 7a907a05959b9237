"""Files of several inputs and outputs: both runners take and give them in the order of the graph, or by name, bit for
bit the same, and refuse what does not fit in the same words."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from several_tensors import signed, sum_cast_most, two_to_three
from two_runners import RELU, TIMES, Array, Job, Runner, infer_case, written

from edgeprune.latency.tflite_writer import Graph

ROWS = 7


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return two_to_three(tmp_path / "three.tflite")


@pytest.fixture
def inputs() -> tuple[Array, Array]:
    random = np.random.default_rng(2)
    image = random.standard_normal((ROWS, 4, 4, 3), dtype=np.float32)
    return image, random.integers(-99, 99, (ROWS, 3), dtype=np.int32)


def answered(runner: Runner, folder: Path, case: Job) -> list[Array]:
    """The outputs of a case, in the order of the files that its runner tells."""
    answer = runner.run(folder, {"mode": "infer", "runs": 3, "cases": [case]})
    assert (answer.code, answer.of("error")) == (0, [])
    (event,) = answer.of("outputs")
    assert (event["file"], event["count"]) == (case["outputs"], ROWS)
    files = [event["file"], *event.get("more_files", [])]
    assert ("more_files" in event) == (len(files) > 1)
    assert all(Path(file).name.startswith(Path(case["outputs"]).name) for file in files)
    assert not list(folder.glob("*.partial"))
    return [np.load(file, allow_pickle=False) for file in files]


def same(found: list[Array], expected: list[Array]) -> None:
    assert [(one.dtype, one.shape) for one in found] == [(one.dtype, one.shape) for one in expected]
    assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]


def test_the_order_is_the_graphs_without_names(
    runner: Runner, tmp_path: Path, model: Path, inputs: tuple[Array, Array]
) -> None:
    right = sum_cast_most(*inputs)
    same(answered(runner, tmp_path, infer_case(tmp_path, "all", model, *inputs)), list(right.values()))
    assert [one.shape for one in right.values()] == [(ROWS, 4, 4, 3), (ROWS, 3), (ROWS,)]


@pytest.mark.parametrize("wanted", [["t6"], ["t4", "t3"], ["t6", "t3", "t4"]])
def test_names_choose_and_order(
    runner: Runner, tmp_path: Path, model: Path, inputs: tuple[Array, Array], wanted: list[str]
) -> None:
    right = sum_cast_most(*inputs)
    image, numbers = inputs
    case = infer_case(tmp_path, "some", model, numbers, image, input_names=["t1", "t0"], output_names=wanted)
    same(answered(runner, tmp_path, case), [right[name] for name in wanted])


@pytest.mark.parametrize("wanted", [None, ["t1", "t1", "t2"]])
def test_a_tensor_may_stand_twice_among_the_outputs(runner: Runner, tmp_path: Path, wanted: list[str] | None) -> None:
    graph = Graph()
    x = graph.input((1, 4))
    cut, large = graph.add("RELU", [x], (1, 4)), graph.add("ABS", [x], (1, 4))
    for tensor in (cut, cut, large):
        graph.output(tensor)
    model = signed(graph, tmp_path / "twice.tflite", {"x": x}, {"a": large, "b": cut, "c": cut})
    values = np.random.default_rng(3).standard_normal((ROWS, 4), dtype=np.float32)
    case = infer_case(tmp_path, "twice", model, values, **({} if wanted is None else {"output_names": wanted}))
    same(answered(runner, tmp_path, case), [np.maximum(values, 0), np.maximum(values, 0), np.abs(values)])


def test_an_input_may_be_an_output(runner: Runner, tmp_path: Path) -> None:
    graph = Graph()
    x, y = graph.input((1, 4)), graph.input((1, 4))
    for tensor in (x, graph.add("SUB", [x, y], (1, 4), schema.SubOptionsT())):
        graph.output(tensor)
    model = tmp_path / "back.tflite"
    model.write_bytes(graph.to_bytes())
    one, other = np.random.default_rng(4).standard_normal((2, ROWS, 4), dtype=np.float32)
    same(answered(runner, tmp_path, infer_case(tmp_path, "back", model, one, other)), [one, one - other])


def test_what_does_not_fit_is_refused_in_the_same_words(
    python: Runner, native: Runner, tmp_path: Path, model: Path, inputs: tuple[Array, Array]
) -> None:
    image, numbers = inputs
    relu = written(RELU, tmp_path / "relu.tflite")
    cases = [
        infer_case(tmp_path, "one of two", model, image),
        infer_case(tmp_path, "two of one", relu, image, numbers),
        infer_case(tmp_path, "turned", model, numbers, image),
        infer_case(tmp_path, "type", model, image, numbers.astype(np.int64)),
        infer_case(tmp_path, "rows", model, image, numbers[:-1]),
        infer_case(tmp_path, "no such output", model, image, numbers, output_names=["t3", "t9"]),
        infer_case(tmp_path, "a signature's name", model, image, numbers, output_names=["a"]),
        infer_case(tmp_path, "twice", model, image, numbers, output_names=["t3", "t3"]),
        infer_case(tmp_path, "no such input", model, image, numbers, input_names=["t0", "t2"]),
        infer_case(tmp_path, "names", model, image, numbers, input_names=["t0"]),
        infer_case(tmp_path, "good", model, image, numbers),
    ]
    said = {}
    for runner in (python, native):
        answer = runner.run(tmp_path, {"mode": "infer", "runs": 1, "cases": cases})
        assert [event["case"] for event in answer.of("outputs")] == ["good"]
        assert {event["kind"] for event in answer.of("error")} == {"input"}
        said[runner.name] = {event["case"]: event["message"] for event in answer.of("error")}
        assert set(said[runner.name]) == {case["id"] for case in cases[:-1]}
        left = {path.name for path in tmp_path.glob("*-out.npy*")}
        assert left == {"good-out.npy", "good-out.npy.1", "good-out.npy.2"}
    assert said["native"] == said["python"]
    assert "input 1 of 2 is int32 (7, 3), the file takes float32 (1, 4, 4, 3)" in said["native"]["turned"]
    assert "t9" in said["native"]["no such output"]
    assert "t3, t4, t6" in said["native"]["no such output"]


def test_the_other_modes_take_them_too(runner: Runner, tmp_path: Path, model: Path) -> None:
    cases = [{"id": "a", "model": str(model)}]
    assert len(runner.run(tmp_path, {**TIMES, "cases": cases}).of("samples")) == 3
    (memory,) = runner.run(tmp_path, {"mode": "memory", "runs": 2, "cases": cases}).of("memory")
    assert memory["peak_bytes"] is None or memory["peak_bytes"] >= 0
    (profile,) = runner.run(tmp_path, {"mode": "profile", "runs": 2, "warm_up_runs": 1, "cases": cases}).of("profile")
    assert len(profile["names"]) >= 3
    assert [len(run) for run in profile["times_us"]] == [len(profile["names"])] * 2


def test_outputs_are_not_kept_in_memory(runner: Runner, tmp_path: Path) -> None:
    """A megabyte of outputs for each number: so many rows more take no more memory."""
    graph = Graph()
    x = graph.input((1, 1, 1, 1))
    sides = graph.constant(np.array([[0, 0], [255, 256], [255, 256], [0, 0]], np.int32))
    graph.output(graph.add("PAD", [x, sides], (1, 512, 512, 1), schema.PadOptionsT()))
    graph.output(graph.add("NEG", [x], (1, 1, 1, 1)))
    model = tmp_path / "large.tflite"
    model.write_bytes(graph.to_bytes())
    most = []
    for rows in (4, 84):
        case = infer_case(tmp_path, f"{rows}", model, np.ones((rows, 1, 1, 1), np.float32))
        job = {"version": 1, "runtime": "litert", "threads": 1, "mode": "infer", "runs": 1, "cases": [case]}
        place = tmp_path / "job.json"
        place.write_text(json.dumps({**runner.job, **job}))
        process = subprocess.Popen([*runner.argv, str(place)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0
        assert np.load(case["outputs"], mmap_mode="r").shape == (rows, 512, 512, 1)
        Path(case["outputs"]).unlink()
        most.append(usage.ru_maxrss / 1024)
    assert most[1] - most[0] < 20


@pytest.mark.parametrize(
    "change", [{"more_inputs": "x"}, {"more_inputs": [1]}, {"output_names": "t3"}, {"input_names": [None]}]
)
def test_a_case_with_a_wrong_list_is_refused_by_its_name(
    native: Runner, tmp_path: Path, model: Path, inputs: tuple[Array, Array], change: Job
) -> None:
    case = {**infer_case(tmp_path, "a", model, *inputs), **change}
    answer = native.run(tmp_path, {"mode": "infer", "runs": 1, "cases": [case]})
    assert (answer.code, answer.events) == (2, [])
    assert f"`{next(iter(change))}`" in answer.stderr
