"""The two runners of this machine, and what they are given: jobs, and small models of every kind."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as schema
from several_tensors import signed

from edgeprune.devices.bundle import Bundle, native_bundle
from edgeprune.errors import ToolkitMissing
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_writer import Graph, write_operation

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
    return signed(graph, path, {"x": x}, {"a": second, "b": first})


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


def infer_case(folder: Path, name: str, model: Path, inputs: Array, *more: Array, **names: list[str]) -> Job:
    """A case; `names`: input_names and output_names."""
    place = saved(inputs, folder / f"{name}-in.npy")
    case = {"id": name, "model": str(model), "inputs": place, "outputs": str(folder / f"{name}-out.npy"), **names}
    if more:
        case["more_inputs"] = [saved(one, folder / f"{name}-in-{number}.npy") for number, one in enumerate(more)]
    return case
