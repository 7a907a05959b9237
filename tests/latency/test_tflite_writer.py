from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from edgeprune.graph.operations import OpSignature
from edgeprune.latency.tflite_probes import repeated
from edgeprune.latency.tflite_writer import ACTIVATIONS, Unsupported, write_operation

Array = npt.NDArray[Any]


def run(content: bytes, x: Array | None = None) -> tuple[Array, list[Array]]:
    """The input (random unless given) and every output."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()[0]
    if x is None:
        x = np.random.default_rng(1).standard_normal(details["shape"]).astype(np.float32)
    interpreter.set_tensor(details["index"], x)
    interpreter.invoke()
    return x, [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def constants(content: bytes) -> list[Array]:
    """Float constants of rank one and more, in the order they were written."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    tensors = [t for t in model.subgraphs[0].tensors if t.type == schema.TensorType.FLOAT32 and len(t.shape)]
    buffers = [(t, model.buffers[t.buffer].data) for t in tensors if t.buffer]
    return [np.frombuffer(bytes(data), np.float32).reshape(t.shape) for t, data in buffers]


def reference(op: OpSignature, x: Array, weights: list[Array]) -> Array:
    """The same operation in PyTorch, NHWC in and out."""
    t = torch.from_numpy(x)
    t = t if op.kind == "linear" else t.permute(0, 3, 1, 2)
    w, b = (torch.from_numpy(a.copy()) for a in weights[:2]) if len(weights) > 1 else (t, t)
    if op.kind == "conv2d":
        y = F.conv2d(t, w.permute(0, 3, 1, 2), b, op.stride, op.padding, op.dilation, op.groups)
    elif op.kind == "depthwise_conv2d":
        y = F.conv2d(t, w.permute(3, 0, 1, 2), b, op.stride, op.padding, op.dilation, op.groups)
    elif op.kind == "linear":
        y = F.linear(t, w, b)
    elif op.kind == "avg_pool2d":
        y = F.avg_pool2d(t, op.kernel, op.stride, op.padding)
    elif op.kind == "max_pool2d":
        y = F.max_pool2d(t, op.kernel, op.stride, op.padding)
    elif op.kind == "mean":
        y = t.mean((2, 3), keepdim=True)
    elif op.kind == "activation":
        y = F.gelu(t, approximate="tanh") if op.function == "gelu_tanh" else getattr(F, op.function)(t)
    else:
        other = torch.from_numpy(weights[0].copy()).permute(0, 3, 1, 2) if op.broadcast else t
        y = t + other if op.kind == "add" else t * other
    if op.kind != "activation" and op.function:
        y = getattr(F, op.function)(y)
    return (y if op.kind == "linear" else y.permute(0, 2, 3, 1)).numpy()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_convolutions_and_pooling_compute_what_pytorch_computes(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["conv2d", "depthwise_conv2d", "avg_pool2d", "max_pool2d"]))
    kernel = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    pooling = kind.endswith("pool2d")
    dilation = (1, 1) if pooling else data.draw(st.sampled_from([(1, 1), (2, 2)]))
    most = [k // 2 if pooling else k - 1 for k in kernel]
    groups = data.draw(st.sampled_from([1, 2])) if kind == "conv2d" else 1
    channels = 4 * data.draw(st.integers(1, 3))
    out = 4 * data.draw(st.integers(1, 3)) if kind == "conv2d" else channels
    # TFLite's dilated convolutions have stride 1, as have PyTorch's models.
    stride = (1, 1) if dilation == (2, 2) else data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    op = OpSignature(
        kind,
        channels,
        out,
        data.draw(st.integers(9, 16)),
        data.draw(st.integers(9, 16)),
        kernel,
        stride,
        (data.draw(st.integers(0, most[0])), data.draw(st.integers(0, most[1]))),
        dilation,
        channels if kind == "depthwise_conv2d" else groups,
        "" if pooling else data.draw(st.sampled_from(["", "relu", "relu6"])),
    )
    path = tmp_path / "op.tflite"
    write_operation(op, path)
    x, (y,) = run(path.read_bytes())
    assert y.shape == (1, *op.out_hw, out)
    np.testing.assert_allclose(y, reference(op, x, constants(path.read_bytes())), atol=1e-4, rtol=1e-4)


OTHERS = [
    OpSignature("linear", 32, 10, 5),
    OpSignature("linear", 7, 3, function="relu"),
    OpSignature("add", 8, 8, 5, 6, function="relu"),
    OpSignature("mul", 8, 8, 5, 6),
    OpSignature("mul", 8, 8, 5, 6, broadcast=True),
    OpSignature("mean", 8, 8, 7, 9),
    *(OpSignature("activation", 8, 8, 4, 5, function=name) for name in ACTIVATIONS),
]


@pytest.mark.parametrize("op", OTHERS, ids=lambda op: f"{op.kind}-{op.function}")
def test_other_operations_compute_what_pytorch_computes(tmp_path: Path, op: OpSignature) -> None:
    path = tmp_path / "op.tflite"
    write_operation(op, path)
    x, (y,) = run(path.read_bytes())
    np.testing.assert_allclose(y, reference(op, x, constants(path.read_bytes())), atol=1e-5, rtol=1e-5)


def test_copies_have_weights_of_their_own_on_one_input() -> None:
    _, outputs = run(repeated(OpSignature("conv2d", 4, 8, 6, 6, (3, 3), padding=(1, 1)), 4))
    assert len(outputs) == 4
    assert all(np.abs(a - b).max() > 0.1 for a, b in pairwise(outputs))


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (OpSignature("conv2d", 6, 8, 4, 4, groups=4), "groups do not divide"),
        (OpSignature("conv2d", 6, 8, 4, 4, function="mish"), "fused 'mish'"),
        (OpSignature("activation", 8, 8, 4, 4, function="mish"), "'mish' is not known"),
        (OpSignature("max_pool2d", 8, 8, 9, 9, (2, 2), dilation=(2, 2)), "no dilation"),
    ],
)
def test_what_cannot_be_written_says_why(tmp_path: Path, op: OpSignature, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        write_operation(op, tmp_path / "op.tflite")
