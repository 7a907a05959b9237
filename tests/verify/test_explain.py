"""Where a device parts from this machine: a device that computes one operator wrong, made of a real runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from facts import refused

from edgeprune.devices.inference import run_inference
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_writer import Graph, append
from edgeprune.verify.explain import cut_behind, explain

DEPTH = 9
CONV = OpSignature("conv2d", 8, 8, 6, 6, (3, 3), padding=(1, 1))


class Wrong(LocalDevice):
    """This machine, but the weights of one operator are others."""

    def __init__(self, folder: Path, wrong: int) -> None:
        super().__init__(folder)
        self._wrong = wrong

    @property
    def id(self) -> str:
        return "ssh:wrong"

    def push_all(self, files: Mapping[str, Path]) -> None:
        changed = dict(files)
        for remote, path in files.items():
            if path.suffix == ".tflite":
                changed[remote] = self._spoiled(path)
        super().push_all(changed)

    def _spoiled(self, path: Path) -> Path:
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        graph = model.subgraphs[0]
        if len(graph.operators) <= self._wrong:
            return path
        weights = model.buffers[graph.tensors[int(graph.operators[self._wrong].inputs[1])].buffer]
        weights.data = (np.asarray(weights.data, np.uint8).view(np.float32) * 1.01).view(np.uint8)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        spoiled = path.with_name("spoiled.tflite")
        spoiled.write_bytes(bytes(builder.Output()))
        return spoiled


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    graph = Graph()
    x = graph.input((1, 6, 6, 8))
    for _ in range(DEPTH):
        x = append(graph, CONV, x)
    graph.output(x)
    path = tmp_path / "chain.tflite"
    path.write_bytes(graph.to_bytes())
    return path


@pytest.mark.parametrize("wrong", [0, 3, DEPTH - 1])
def test_the_first_operator_that_differs_is_found(chain: Path, tmp_path: Path, wrong: int) -> None:
    found = explain(Wrong(tmp_path / "device", wrong), chain)
    assert found.first is not None
    assert (found.first.index, found.first.kind, found.operators) == (wrong, "CONV_2D", DEPTH)
    assert found.first.sqnr_db == pytest.approx(40, abs=6)  # one percent
    assert len(found.looked_at) <= 5  # by halving
    assert all(one.differs == (one.index >= wrong) for one in found.looked_at)


def test_nothing_differs_on_this_machine(chain: Path, tmp_path: Path) -> None:
    found = explain(LocalDevice(tmp_path / "device"), chain)
    assert found.first is None
    assert [one.index for one in found.looked_at] == [DEPTH - 1]


def test_a_cut_file_computes_what_stood_there(chain: Path, tmp_path: Path) -> None:
    device = LocalDevice(tmp_path / "device")
    inputs = np.random.default_rng(0).standard_normal((2, 6, 6, 8)).astype(np.float32)
    whole = tmp_path / "whole.tflite"
    whole.write_bytes(cut_behind(chain, DEPTH - 1))
    first = tmp_path / "first.tflite"
    first.write_bytes(cut_behind(chain, 0))
    assert len(first.read_bytes()) < len(chain.read_bytes()) / 2
    expected = run_inference(device, chain, inputs, runtime="litert").outputs[0]
    np.testing.assert_array_equal(run_inference(device, whole, inputs, runtime="litert").outputs[0], expected)
    assert run_inference(device, first, inputs, runtime="litert").outputs[0].shape == expected.shape


def test_what_is_no_tflite_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pte").write_bytes(b"something else")
    with refused(UsageError, tmp_path / "x.pte", ".tflite"):
        explain(LocalDevice(tmp_path / "device"), tmp_path / "x.pte")


def test_the_operator_on_a_branch_is_found_behind_one_that_agrees(tmp_path: Path) -> None:
    graph = Graph()
    x = graph.input((1, 6, 6, 8))
    wrong, right = append(graph, CONV, x), append(graph, CONV, x)  # operators 0 and 1
    for _ in range(4):
        right = append(graph, CONV, right)
    graph.output(graph.add("ADD", [wrong, right], graph.shape(right), schema.AddOptionsT()))
    path = tmp_path / "branch.tflite"
    path.write_bytes(graph.to_bytes())
    found = explain(Wrong(tmp_path / "device", 0), path)
    assert found.first is not None
    assert found.first.index == 0
