"""Writing .tflite files of single float32 operations, directly as flatbuffers: no converter, no torch.

The graphs are what `litert_torch` writes for the same PyTorch layer: NHWC, SAME or VALID padding where that equals
PyTorch's, else an explicit PAD. To be timed, an operation is repeated: see `Form`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeprune.errors import EdgePruneError
from edgeprune.graph.operations import OpSignature

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
FUSED = {
    "": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
LOWEST = float(np.finfo(np.float32).min)


class Unsupported(EdgePruneError):
    """This operation cannot be written; the message says why."""


class Graph:
    """A graph under construction: tensors, constants and operators of one subgraph."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators, self._graph.inputs, self._graph.outputs = [], [], [], []
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers: list[Array | None] = [None]  # buffer 0 is empty by convention
        self._shapes: list[Shape] = []

    def shape(self, tensor: int) -> Shape:
        return self._shapes[tensor]

    def input(self, shape: Shape) -> int:
        tensor = self._tensor(shape, 0, schema.TensorType.FLOAT32)
        self._graph.inputs.append(tensor)
        return tensor

    def output(self, tensor: int) -> None:
        self._graph.outputs.append(tensor)

    def weights(self, shape: Shape) -> int:
        """Random weights that keep the size of what flows through them (He et al. 2015, eq. 10)."""
        fan_in = max(1, int(np.prod(shape[1:])))
        return self.constant(self._random.standard_normal(shape, dtype=np.float32) * np.float32((2 / fan_in) ** 0.5))

    def constant(self, value: Array) -> int:
        """A tensor with a value (float32 or int32)."""
        kinds = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32}
        self._buffers.append(value)
        return self._tensor(value.shape, len(self._buffers) - 1, kinds[str(value.dtype)])

    def add(
        self,
        name: str,
        inputs: list[int],
        shape: Shape,
        options: Any = None,
        *,
        version: int = 1,
        kind: int = schema.TensorType.FLOAT32,
    ) -> int:
        """Append the operator `name` (as in schema.BuiltinOperator) with one output of this shape and type."""
        code = getattr(schema.BuiltinOperator, name)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((code, version), len(self._codes))
        result = self._tensor(shape, 0, kind)
        operator.inputs, operator.outputs = inputs, [result]
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
            operator.builtinOptions = options
        self._graph.operators.append(operator)
        return result

    def _tensor(self, shape: Shape, buffer: int, kind: int) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, buffer
        tensor.name = f"t{len(self._shapes)}"
        self._graph.tensors.append(tensor)
        self._shapes.append(shape)
        return len(self._shapes) - 1

    def _signature(self) -> Any:
        """How inputs and outputs are called, which quantizers ask for."""
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_named(f"input_{n}", tensor) for n, tensor in enumerate(self._graph.inputs)]
        signature.outputs = [_named(f"output_{n}", tensor) for n, tensor in enumerate(self._graph.outputs)]
        return signature

    def to_bytes(self) -> bytes:
        model = schema.ModelT()
        model.version, model.description, model.subgraphs = 3, "edgeprune probe", [self._graph]
        model.signatureDefs = [self._signature()]
        model.operatorCodes = []
        for code, version in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.version = code, version
            entry.deprecatedBuiltinCode = min(code, 127)
            model.operatorCodes.append(entry)
        model.buffers = []
        for value in self._buffers:
            buffer = schema.BufferT()
            if value is not None:
                buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            model.buffers.append(buffer)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _named(name: str, tensor: int) -> Any:
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name, tensor
    return named


def input_shape(op: OpSignature) -> Shape:
    """NHWC, batch 1; (rows, channels) for a linear layer."""
    if op.kind == "linear":
        return (op.height, op.in_channels)
    return (1, op.height, op.width, op.in_channels)


def append(graph: Graph, op: OpSignature, x: int) -> int:
    """Append one operation with weights of its own; returns its output.

    Raises:
        Unsupported: TFLite or its CPU kernels cannot run it as one operation.
    """
    if op.kind != "activation" and op.function not in FUSED:
        raise Unsupported(f"a fused {op.function!r}", where=op.key(), hint="give the activation as an operation")
    return WRITERS[op.kind](graph, op, x)


def write_operation(op: OpSignature, path: Path, *, times: int = 1) -> None:
    """One operation, or so many of it one after the other; one input, one output."""
    graph = Graph()
    x = graph.input(input_shape(op))
    for _ in range(times):
        x = append(graph, op, x)
    graph.output(x)
    path.write_bytes(graph.to_bytes())


def _conv2d(graph: Graph, op: OpSignature, x: int) -> int:
    if op.in_channels % op.groups or op.out_channels % op.groups:
        raise Unsupported(f"{op.groups} groups do not divide the channels", where=op.key())
    x, padding = _padded(graph, op, x, 0.0)
    options = schema.Conv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, FUSED[op.function]
    options.strideH, options.strideW = op.stride
    options.dilationHFactor, options.dilationWFactor = op.dilation
    weights = graph.weights((op.out_channels, *op.kernel, op.in_channels // op.groups))
    bias = graph.weights((op.out_channels,))
    return graph.add("CONV_2D", [x, weights, bias], _image(op), options, version=1 if op.groups == 1 else 6)


def _depthwise(graph: Graph, op: OpSignature, x: int) -> int:
    if op.out_channels % op.in_channels:
        raise Unsupported("output channels are not a multiple of the input channels", where=op.key())
    x, padding = _padded(graph, op, x, 0.0)
    options = schema.DepthwiseConv2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, FUSED[op.function]
    options.depthMultiplier = op.out_channels // op.in_channels
    options.strideH, options.strideW = op.stride
    options.dilationHFactor, options.dilationWFactor = op.dilation
    weights, bias = graph.weights((1, *op.kernel, op.out_channels)), graph.weights((op.out_channels,))
    version = 1 if op.dilation == (1, 1) else 2
    return graph.add("DEPTHWISE_CONV_2D", [x, weights, bias], _image(op), options, version=version)


def _linear(graph: Graph, op: OpSignature, x: int) -> int:
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction, options.keepNumDims = FUSED[op.function], True
    weights, bias = graph.weights((op.out_channels, op.in_channels)), graph.weights((op.out_channels,))
    return graph.add("FULLY_CONNECTED", [x, weights, bias], (op.height, op.out_channels), options, version=5)


def _elementwise(graph: Graph, op: OpSignature, x: int) -> int:
    """Both operands flow through the graph, as in a model: the second is the input itself or its pooled mean."""
    options = schema.AddOptionsT() if op.kind == "add" else schema.MulOptionsT()
    options.fusedActivationFunction = FUSED[op.function]
    other = x
    if op.broadcast:
        other = graph.constant(np.full((1, 1, 1, op.in_channels), 0.75, np.float32))
    return graph.add(op.kind.upper(), [x, other], _image(op), options)


def _pool(graph: Graph, op: OpSignature, x: int) -> int:
    if op.dilation != (1, 1):
        raise Unsupported("TFLite's pooling has no dilation", where=op.key())
    average = op.kind == "avg_pool2d"
    x, padding = _padded(graph, op, x, 0.0 if average else LOWEST)
    options = schema.Pool2DOptionsT()
    options.padding, options.fusedActivationFunction = padding, FUSED[op.function]
    options.filterHeight, options.filterWidth = op.kernel
    options.strideH, options.strideW = op.stride
    return graph.add("AVERAGE_POOL_2D" if average else "MAX_POOL_2D", [x], _image(op), options)


def _mean(graph: Graph, op: OpSignature, x: int) -> int:
    options = schema.ReducerOptionsT()
    options.keepDims = True
    return graph.add("MEAN", [x, graph.constant(np.array([1, 2], np.int32))], _image(op), options)


def _activation(graph: Graph, op: OpSignature, x: int) -> int:
    if op.function not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise Unsupported(f"the activation {op.function!r} is not known", where=op.key(), hint=f"known: {known}")
    return ACTIVATIONS[op.function](graph, x)


def _single(name: str) -> Callable[[Graph, int], int]:
    return lambda graph, x: graph.add(name, [x], graph.shape(x))


def _silu(graph: Graph, x: int) -> int:
    gate = graph.add("LOGISTIC", [x], graph.shape(x))
    return graph.add("MUL", [x, gate], graph.shape(x), schema.MulOptionsT())


def _gelu(*, tanh: bool) -> Callable[[Graph, int], int]:
    def write(graph: Graph, x: int) -> int:
        options = schema.GeluOptionsT()
        options.approximate = tanh
        return graph.add("GELU", [x], graph.shape(x), options)

    return write


def _hardsigmoid(graph: Graph, x: int) -> int:
    """relu6(x + 3) / 6, as the converter writes it."""
    options = schema.AddOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU6
    shifted = graph.add("ADD", [x, graph.constant(np.array(3, np.float32))], graph.shape(x), options)
    sixth = graph.constant(np.array(1 / 6, np.float32))
    return graph.add("MUL", [shifted, sixth], graph.shape(x), schema.MulOptionsT())


ACTIVATIONS: dict[str, Callable[[Graph, int], int]] = {
    "relu": _single("RELU"),
    "relu6": _single("RELU6"),
    "hardswish": _single("HARD_SWISH"),
    "sigmoid": _single("LOGISTIC"),
    "tanh": _single("TANH"),
    "elu": _single("ELU"),
    "silu": _silu,
    "gelu": _gelu(tanh=False),
    "gelu_tanh": _gelu(tanh=True),
    "hardsigmoid": _hardsigmoid,
}

WRITERS: dict[str, Callable[[Graph, OpSignature, int], int]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise,
    "linear": _linear,
    "add": _elementwise,
    "mul": _elementwise,
    "avg_pool2d": _pool,
    "max_pool2d": _pool,
    "mean": _mean,
    "activation": _activation,
}


def _image(op: OpSignature) -> Shape:
    return (1, *op.out_hw, op.out_channels)


def _padded(graph: Graph, op: OpSignature, x: int, value: float) -> tuple[int, int]:
    """PyTorch's symmetric padding as TFLite's: (tensor, schema.Padding), with a PAD operator where needed.

    Average pooling counts padded zeros in PyTorch and leaves them out in TFLite, so it is padded explicitly.
    """
    if op.padding == (0, 0):
        return x, schema.Padding.VALID
    if op.kind != "avg_pool2d" and _is_same(op):
        return x, schema.Padding.SAME
    (top, left), (height, width) = op.padding, (op.height, op.width)
    shape = (1, height + 2 * top, width + 2 * left, op.in_channels)
    pads = graph.constant(np.array([[0, 0], [top, top], [left, left], [0, 0]], np.int32))
    if value == 0.0:
        return graph.add("PAD", [x, pads], shape, schema.PadOptionsT()), schema.Padding.VALID
    fill = graph.constant(np.array(value, np.float32))
    return graph.add("PADV2", [x, pads, fill], shape, schema.PadV2OptionsT()), schema.Padding.VALID


def _is_same(op: OpSignature) -> bool:
    """Whether TFLite's SAME pads exactly as PyTorch does: as much before as after, and so much."""
    for n, k, s, d, p in zip((op.height, op.width), op.kernel, op.stride, op.dilation, op.padding, strict=True):
        if max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) != 2 * p:
            return False
    return True
