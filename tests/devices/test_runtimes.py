"""The same small network through each runtime that is installed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeprune.artifacts.probes import build_probes
from edgeprune.devices.inference import run_inference
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.devices.local import LocalDevice
from edgeprune.graph.operations import OpSignature

TIMING = Timing("interleaved", 2, False, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.001, max_samples=16)


@pytest.fixture
def relu_onnx(tmp_path: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", kind, ["batch", 3, 4, 5])],
        [helper.make_tensor_value_info("y", kind, ["batch", 3, 4, 5])],
    )
    path = tmp_path / "relu.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("threads", [1, 2])
def test_onnx_runtime(device: LocalDevice, relu_onnx: Path, threads: int) -> None:
    inputs = np.random.default_rng(0).standard_normal((5, 3, 4, 5), dtype=np.float32)
    result = run_inference(device, relu_onnx, inputs, runtime="onnxruntime", threads=threads)
    np.testing.assert_array_equal(result.outputs[0], np.maximum(inputs, 0))
    job = Job("onnxruntime", (Case("a", relu_onnx),), threads=threads, timing=TIMING)
    assert len(run_job(device, job).cases["a"].visits) == 2


def test_a_broken_onnx_file_is_a_failure_of_its_own(device: LocalDevice, relu_onnx: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not protobuf")
    result = run_job(device, Job("onnxruntime", (Case("bad", bad), Case("good", relu_onnx)), timing=TIMING))
    assert result.cases["bad"].failure
    assert len(result.cases["good"].visits) == 2


@pytest.mark.slow
def test_executorch(device: LocalDevice, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    relu = OpSignature("activation", 6, 6, function="relu")  # one pixel: probes are channels_last, inference is not
    add = OpSignature("add", 3, 3, 4, 5)
    files = build_probes("executorch", [relu, add], tmp_path / "probes")
    inputs = np.random.default_rng(0).standard_normal((5, 6, 1, 1), dtype=np.float32)
    result = run_inference(device, files[relu.key()], inputs, runtime="executorch")
    np.testing.assert_array_equal(result.outputs[0], np.maximum(inputs, 0))
    bad = tmp_path / "bad.pte"
    bad.write_bytes(b"not a program, but long enough to be looked at" * 9)
    cases = (Case("relu", files[relu.key()]), Case("bad", bad), Case("add", files[add.key()]))
    timed = run_job(device, Job("executorch", cases, threads=2, timing=TIMING)).cases
    assert [len(timed[name].visits) for name in ("relu", "bad", "add")] == [2, 0, 2]
    assert timed["bad"].failure
