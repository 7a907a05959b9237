"""Files of several inputs and outputs, from arrays here to arrays here, through each runtime that is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import refused
from several_tensors import Array, sum_cast_most, two_to_three

from edgeprune.devices import inference
from edgeprune.devices.inference import run_inference
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import UsageError

TIMING = Timing("interleaved", 2, True, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.001, max_samples=8)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return two_to_three(tmp_path / "three.tflite")


def given(rows: int) -> tuple[Array, Array]:
    random = np.random.default_rng(rows)
    image = random.standard_normal((rows, 4, 4, 3), dtype=np.float32)
    return image, random.integers(-99, 99, (rows, 3), dtype=np.int32)


def same(found: tuple[Array, ...], expected: list[Array]) -> None:
    assert [one.dtype for one in found] == [one.dtype for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_all_outputs_come_in_the_order_of_the_graph(
    device: LocalDevice, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "INFERENCE_BATCH", 8)
    inputs = given(20)  # three batches, the last one shorter
    result = run_inference(device, three, inputs, runtime="litert")
    same(result.outputs, list(sum_cast_most(*inputs).values()))
    assert result.peak_memory_bytes is None or result.peak_memory_bytes > 0
    assert list((tmp_path / "device" / "jobs").iterdir()) == []


def test_names_choose_inputs_and_outputs(device: LocalDevice, three: Path) -> None:
    image, numbers = given(5)
    right = sum_cast_most(image, numbers)
    named = {"input_names": ["t1", "t0"], "outputs": ["t6", "t3"]}
    result = run_inference(device, three, [numbers, image], runtime="litert", **named)
    same(result.outputs, [right["t6"], right["t3"]])


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"inputs": ()}, ()),
        ({"inputs": (given(5)[0],)}, (2, 1)),
        ({"inputs": (given(5)[0], given(4)[1])}, ("(5, 4, 4, 3)", "(4, 3)")),
        ({"inputs": (given(5)[0], np.float32(3))}, ("()",)),
        ({"inputs": given(5)[::-1]}, ("int32 (5, 3)", "float32 (1, 4, 4, 3)")),
        ({"outputs": ["t3", "score"]}, ("score", "t6")),
        ({"outputs": []}, ()),
        ({"input_names": ["t0"]}, (2, 1)),
        ({"input_names": ["t0", "mask"]}, ("mask", "t1")),
    ],
)
def test_what_does_not_fit_is_refused(
    device: LocalDevice, three: Path, change: dict[str, Any], facts: tuple[object, ...]
) -> None:
    asked = {"inputs": given(5), **change}
    with refused(UsageError, "three.tflite", *facts):
        run_inference(device, three, runtime="litert", **asked)


def test_the_other_modes_take_them_too(device: LocalDevice, three: Path) -> None:
    cases = (Case("a", three),)
    assert len(run_job(device, Job("litert", cases, timing=TIMING)).cases["a"].visits) == 2
    memory = run_job(device, Job("litert", cases)).cases["a"]
    assert (memory.failure, memory.outputs) == (None, None)
    kernels = run_job(device, Job("litert", cases, profile_runs=2)).cases["a"].kernels
    assert kernels is not None
    assert len(kernels.names) >= 3


def test_equal_inputs_go_over_once_and_others_beside_them(device: LocalDevice, three: Path, tmp_path: Path) -> None:
    image, numbers = given(3)
    cases = (
        Case("a", three, (image, numbers)),
        Case("b", three, (image, numbers)),
        Case("c", three, (image, -numbers)),
    )
    result = run_job(device, Job("litert", cases))
    for name, signed in (("a", numbers), ("b", numbers), ("c", -numbers)):
        same(result.cases[name].outputs or (), list(sum_cast_most(image, signed).values()))
    assert len(list((tmp_path / "device" / "inputs").iterdir())) == 3


def test_onnx_runtime_gives_several(device: LocalDevice, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, real, whole = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    nodes = [
        helper.make_node("Sub", ["x", "y"], ["difference"]),
        helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
    ]
    sides = (
        [("x", real, ["batch", 6]), ("y", real, ["batch", 6])],
        [("place", whole, ["batch"]), ("difference", real, None)],
    )
    infos = [[helper.make_tensor_value_info(*one) for one in side] for side in sides]
    model = helper.make_model(
        helper.make_graph(nodes, "two", *infos), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    path = tmp_path / "two.onnx"
    path.write_bytes(model.SerializeToString())
    x, y = np.random.default_rng(0).standard_normal((2, 5, 6), dtype=np.float32)
    right = {"place": x.argmax(axis=1), "difference": x - y}
    same(run_inference(device, path, [x, y], runtime="onnxruntime").outputs, list(right.values()))
    named = {"input_names": ["y", "x"], "outputs": ["difference"]}
    same(run_inference(device, path, [y, x], runtime="onnxruntime", **named).outputs, [right["difference"]])
    with refused(UsageError, "two.onnx", "boxes", "place"):
        run_inference(device, path, [x, y], runtime="onnxruntime", outputs=["boxes"])
    assert len(run_job(device, Job("onnxruntime", (Case("a", path),), timing=TIMING)).cases["a"].visits) == 2


@pytest.mark.slow
def test_executorch_gives_several(device: LocalDevice, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    import torch
    from executorch.exir import to_edge

    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.argmax(x, dim=1), x - y

    example = (torch.zeros(1, 6), torch.zeros(1, 6))
    path = tmp_path / "two.pte"
    path.write_bytes(to_edge(torch.export.export(Two(), example)).to_executorch().buffer)
    x, y = np.random.default_rng(0).standard_normal((2, 5, 6), dtype=np.float32)
    right = [x.argmax(axis=1), x - y]
    same(run_inference(device, path, [x, y], runtime="executorch").outputs, right)
    same(run_inference(device, path, [x, y], runtime="executorch", outputs=["place", "difference"]).outputs, right)
    with refused(UsageError, "two.pte", 2, 1):  # it has no names
        run_inference(device, path, [x, y], runtime="executorch", outputs=["difference"])
    with refused(UsageError, "two.pte", 2, 1):
        run_inference(device, path, x, runtime="executorch")
    assert run_job(device, Job("executorch", (Case("a", path),))).cases["a"].failure is None
