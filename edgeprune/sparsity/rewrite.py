"""A dense .tflite file written anew with its 1x1 convolutions' zeros left out: a third of the size, sparse kernels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgeprune.latency.tflite_check import UNREADABLE, damaged
from edgeprune.runs import write_atomic
from edgeprune.sparsity.encoding import encode
from edgeprune.sparsity.graph import OPERATOR_NAMES, Graph, Operator
from edgeprune.sparsity.rules import is_1x1, is_counted_linear

LEAST_ZEROS = 0.5  # of a layer, to be stored sparsely: an index takes up to half of what a zero does


@dataclass(frozen=True)
class Rewritten:
    """What was done to a file."""

    stored: tuple[int, ...]  # operators whose weights are stored sparsely now
    padded: tuple[int, ...]  # convolutions whose SAME padding became a PAD of its own
    apart: tuple[int, ...]  # linear layers that XNNPACK would have counted among the 1x1 convolutions
    bytes_before: int
    bytes_after: int


def write_sparse(source: Path, target: Path, *, least_zeros: float = LEAST_ZEROS) -> Rewritten:
    """Write a .tflite file with its mostly-zero 1x1 convolutions stored sparsely; it computes the same.

    Each such layer's weights become a sparse constant and a DENSIFY operator, which the runtime unpacks when it loads
    the file. Linear layers stay dense; one that takes rows of channels no longer says that it keeps their dimensions
    (which changes nothing: they are two), so that XNNPACK does not count its weights among the cluster's. A strided
    convolution padded by TensorFlow's SAME with as much on all sides gets that padding as an operator of its own, which
    XNNPACK folds back: SAME keeps it from its sparse kernels.

    Args:
        least_zeros: share of zeros from which on a layer is stored sparsely.

    Raises:
        UsageError: the source cannot be read, is no .tflite file, is damaged, or has several subgraphs.
    """
    graph = Graph(source)
    try:
        return _rewrite(graph, source, target, least_zeros)
    except UNREADABLE as error:
        raise damaged(error, str(source)) from error


def _rewrite(graph: Graph, source: Path, target: Path, least_zeros: float) -> Rewritten:
    writer = _Writer(graph)
    stored = [o for o in graph.operators if _stores(graph, o, least_zeros)]
    padded = {o.number: sides for o in graph.operators if (sides := _even_sides(graph, o)) is not None}
    for tensor in {o.constants[0]: None for o in stored}:
        writer.unpack(tensor)
    for number, side in padded.items():
        writer.pad(number, side)
    linear = [o for o in graph.operators if is_counted_linear(o) and len(graph.shape(o.inputs[0])) == 2]
    for operator in linear:
        operator.options.keepNumDims = False
    write_atomic(target, writer.to_bytes())
    return Rewritten(
        tuple(o.number for o in stored),
        tuple(padded),
        tuple(o.number for o in linear),
        source.stat().st_size,
        target.stat().st_size,
    )


def _stores(graph: Graph, operator: Operator, least_zeros: float) -> bool:
    if not is_1x1(graph, operator):
        return False
    tensor = operator.constants[0]
    if graph.is_sparse(tensor) or not graph.is_float32(tensor):
        return False
    if any(user.name != "CONV_2D" or user.constants[:1] != (tensor,) for user in graph.users(tensor)):
        return False
    weights = graph.value(tensor)
    return int(np.count_nonzero(weights)) <= (1 - least_zeros) * weights.size


def _even_sides(graph: Graph, operator: Operator) -> int | None:
    """Zeros on each side of a strided 3x3 or 5x5 convolution padded by SAME, where they are as many everywhere."""
    if operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D") or operator.padding is not None or not operator.constants:
        return None
    options = operator.options
    kernel = graph.shape(operator.constants[0])[1:3]
    sizes, results = graph.shape(operator.inputs[0])[1:3], graph.shape(operator.outputs[0])[1:3]
    strides = (options.strideH, options.strideW)
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1) or not graph.is_float32(operator.inputs[0]):
        return None
    totals = {
        max((result - 1) * stride + k - size, 0)
        for size, result, stride, k in zip(sizes, results, strides, kernel, strict=True)
    }
    wanted = {2 * (k // 2) for k in kernel}
    return kernel[0] // 2 if totals == wanted and len(totals) == 1 and kernel[0] > 1 else None


class _Writer:
    """Edits a graph's tables; operators that are put in come before the one they are for."""

    def __init__(self, graph: Graph) -> None:
        self._model, self._graph = graph.model, graph.model.subgraphs[0]
        self._source = graph
        self._before: dict[int, list[Any]] = {}

    def unpack(self, tensor: int) -> None:
        """Store a tensor sparsely; who reads it reads what DENSIFY makes of it."""
        entry = self._graph.tensors[tensor]
        values, parameters = encode(self._source.value(tensor))
        entry.sparsity, entry.buffer = parameters, self._buffer(values)
        dense = self._tensor(entry.shape, entry.type, 0, entry.name + b"/dense")
        readers = [n for n, operator in enumerate(self._graph.operators) if tensor in operator.inputs]
        for number in readers:
            operator = self._graph.operators[number]
            operator.inputs = [dense if t == tensor else int(t) for t in operator.inputs]
        self._put(readers[0], "DENSIFY", [tensor], dense, schema.DensifyOptionsT())

    def pad(self, number: int, side: int) -> None:
        """Give an operator's input `side` zeros on each side by a PAD, and its own padding up."""
        operator = self._graph.operators[number]
        image = self._graph.tensors[operator.inputs[0]]
        batch, height, width, channels = (int(n) for n in image.shape)
        shape = [batch, height + 2 * side, width + 2 * side, channels]
        amounts = np.array([[0, 0], [side, side], [side, side], [0, 0]], np.int32)
        given = self._tensor([4, 2], schema.TensorType.INT32, self._buffer(amounts), b"%d/pads" % number)
        padded = self._tensor(shape, image.type, 0, image.name + b"/padded")
        self._put(number, "PAD", [int(operator.inputs[0]), given], padded, schema.PadOptionsT())
        operator.inputs = [padded, *(int(t) for t in operator.inputs[1:])]
        operator.builtinOptions.padding = schema.Padding.VALID

    def to_bytes(self) -> bytes:
        listed = []
        for number, operator in enumerate(self._graph.operators):
            listed += [*self._before.get(number, ()), operator]
        self._graph.operators = listed
        self._drop_unused_buffers()
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _drop_unused_buffers(self) -> None:
        """Empty those that no tensor and no metadata has any more: the dense weights."""
        used = {tensor.buffer for graph in self._model.subgraphs for tensor in graph.tensors}
        used |= {entry.buffer for entry in self._model.metadata or ()} | set(self._model.metadataBuffer or ())
        for number, buffer in enumerate(self._model.buffers):
            if number not in used:
                buffer.data = None

    def _put(self, number: int, name: str, inputs: list[int], output: int, options: Any) -> None:
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        operator.builtinOptions = options
        self._before.setdefault(number, []).append(operator)

    def _code(self, name: str) -> int:
        for number, code in enumerate(self._model.operatorCodes):
            if OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)] == name:
                return number
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1

    def _tensor(self, shape: Any, kind: int, buffer: int, name: bytes) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer, tensor.name = [int(n) for n in shape], kind, buffer, name
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _buffer(self, values: Any) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        return len(self._model.buffers) - 1
