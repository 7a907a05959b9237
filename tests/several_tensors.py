"""Small .tflite files of several inputs and outputs, written directly, and what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeprune.latency.tflite_writer import Graph

Array = npt.NDArray[Any]


def two_to_three(path: Path) -> Path:
    """A model of two inputs, t0 (1, 4, 4, 3) float32 and t1 (1, 3) int32, and three outputs: their sum t3, t1 in int64
    (t4), and the largest of t0 (t6), one number. Its signature has them in other orders. See `sum_cast_most`."""
    graph, kinds = Graph(), schema.TensorType
    image, numbers = graph.input((1, 4, 4, 3)), graph.input((1, 3))
    graph._graph.tensors[numbers].type = kinds.INT32
    real = graph.add("CAST", [numbers], (1, 3), casting(kinds.INT32, kinds.FLOAT32))
    total = graph.add("ADD", [image, real], (1, 4, 4, 3), schema.AddOptionsT())
    wide = graph.add("CAST", [numbers], (1, 3), casting(kinds.INT32, kinds.INT64), kind=kinds.INT64)
    axes = graph.constant(np.array([1, 2, 3], np.int32))
    most = graph.add("REDUCE_MAX", [image, axes], (1,), schema.ReducerOptionsT())
    for tensor in (total, wide, most):
        graph.output(tensor)
    inputs, outputs = {"a": numbers, "b": image}, {"a": most, "b": total, "c": wide}
    return signed(graph, path, inputs, outputs)


def sum_cast_most(image: Array, numbers: Array) -> dict[str, Array]:
    """What `two_to_three` answers, by the names of its tensors, in the order of its graph."""
    total = image + numbers.astype(np.float32)[:, None, None, :]
    return {"t3": total, "t4": numbers.astype(np.int64), "t6": image.max(axis=(1, 2, 3))}


def casting(source: int, target: int) -> Any:
    options = schema.CastOptionsT()
    options.inDataType, options.outDataType = source, target
    return options


def signed(graph: Graph, path: Path, inputs: dict[str, int], outputs: dict[str, int]) -> Path:
    """The model with a signature: names and tensors in its own order."""
    model = schema.ModelT.InitFromPackedBuf(graph.to_bytes())
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = ([named(*pair) for pair in side.items()] for side in (inputs, outputs))
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def named(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry
