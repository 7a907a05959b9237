"""500 mutated .tflite files: each is read, or refused as damaged; the runtime runs in a process of its own."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from mutations import SEED, Judge, Mutator

from edgeprune import api
from edgeprune.devices.jobs import Case, Job, run_job
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_check import check_tflite
from edgeprune.latency.tflite_reader import read_layers
from edgeprune.latency.tflite_writer import Graph, write_operation
from edgeprune.sparsity.rewrite import write_sparse
from edgeprune.sparsity.rules import check_sparse
from edgeprune.verify.explain import read_cuttable

COUNT = 500
MOST_EXPLAINED = 4
READERS = (read_layers, check_sparse, read_cuttable)


def net(path: Path) -> None:
    """A padded and strided convolution, a depthwise and a 1x1 one with zeros, a mean and a linear layer."""
    graph, random = Graph(), np.random.default_rng(0)
    x = graph.input((1, 8, 8, 3))
    conv = schema.Conv2DOptionsT()
    conv.strideH = conv.strideW = 2
    conv.padding = schema.Padding.SAME
    weights = graph.constant(random.standard_normal((8, 3, 3, 3)).astype(np.float32))
    bias = graph.constant(np.zeros(8, np.float32))
    x = graph.add("CONV_2D", [x, weights, bias], (1, 4, 4, 8), conv)
    point = schema.Conv2DOptionsT()
    point.strideH = point.strideW = 1
    values = random.standard_normal((8, 1, 1, 8)).astype(np.float32)
    values[random.random(values.shape) < 0.8] = 0
    x = graph.add("CONV_2D", [x, graph.constant(values), bias], (1, 4, 4, 8), point)
    mean = schema.ReducerOptionsT()
    axes = graph.constant(np.array([1, 2], np.int32))
    x = graph.add("MEAN", [x, axes], (1, 8), mean)
    linear = graph.constant(random.standard_normal((4, 8)).astype(np.float32))
    graph.output(graph.add("FULLY_CONNECTED", [x, linear], (1, 4), schema.FullyConnectedOptionsT()))
    path.write_bytes(graph.to_bytes())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("whole")
    net(folder / "net.tflite")
    write_sparse(folder / "net.tflite", folder / "sparse.tflite", least_zeros=0.5)
    write_operation(OpSignature("depthwise_conv2d", 4, 4, 6, 6, (3, 3), groups=4), folder / "depthwise.tflite")
    return [path.read_bytes() for path in sorted(folder.glob("*.tflite"))]


def mutated(files: list[bytes]) -> list[bytes]:
    mutator = Mutator(SEED)
    return [(mutator.word if n % 2 else mutator.bytes)(files[n % len(files)]) for n in range(COUNT)]


def is_whole(content: bytes) -> bool:
    try:
        check_tflite(content, "")
    except UsageError:
        return False
    return True


def test_the_whole_files_are_read(files: list[bytes]) -> None:
    for content in files:
        check_tflite(content, "whole")


def test_the_readers(files: list[bytes], tmp_path: Path) -> None:
    judge, path = Judge(), tmp_path / "x.tflite"
    for number, content in enumerate(mutated(files)):
        path.write_bytes(content)
        for read in (*READERS, lambda file: write_sparse(file, tmp_path / "out")):
            judge.look(lambda read=read: read(path), (number, content))  # type: ignore[misc]
    judge.saw_both(COUNT // 10)


LISTS = {"graph": ("tensors", "inputs", "outputs", "operators"), "operator": ("inputs", "outputs")}


@pytest.mark.parametrize(("table", "field"), [(table, field) for table, fields in LISTS.items() for field in fields])
def test_a_list_that_is_not_set(files: list[bytes], tmp_path: Path, table: str, field: str) -> None:
    judge, path = Judge(), tmp_path / "x.tflite"
    for number, content in enumerate(files):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        graph = model.subgraphs[0]
        for entry in (graph,) if table == "graph" else graph.operators:
            setattr(entry, field, None)
        builder = flatbuffers.Builder(0)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())
        for read in READERS:
            judge.look(lambda read=read: read(path), (number, table, field))  # type: ignore[misc]
        judge.look(lambda: write_sparse(path, tmp_path / "out"), (number, table, field))


def test_the_runtime(files: list[bytes], tmp_path: Path) -> None:
    """Those that pass the check are run by one process, which is started anew after each crash."""
    cases = []
    for number, content in enumerate(mutated(files)):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(content)
        if is_whole(content):
            cases.append(Case(str(number), path, (np.zeros((1, 8, 8, 3), np.float32),)))
    found = run_job(LocalDevice(), Job("litert", tuple(cases)), timeout_s=300)
    assert all(case.finished for case in found.cases.values())
    failed = [case for case in found.cases.values() if case.failure is not None]
    assert 0 < len(failed) < len(cases)


def test_explain(files: list[bytes], tmp_path: Path) -> None:
    judge, path = Judge(), tmp_path / "x.tflite"
    whole = 0
    for number, content in enumerate(mutated(files)):
        path.write_bytes(content)
        whole += is_whole(content)
        if is_whole(content) and whole > MOST_EXPLAINED:
            continue  # each takes a second, whole or not
        judge.look(lambda: api.explain(path, device="local"), (number, content))
    assert judge.told["refused"]
