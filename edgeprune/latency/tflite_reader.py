"""Reading .tflite files: the layers with weights, in the order in which the runtime runs them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgeprune.graph.operations import Kind, OpSignature
from edgeprune.latency.tflite_check import UNREADABLE, damaged, read_whole

_KINDS: dict[int, Kind] = {
    schema.BuiltinOperator.CONV_2D: "conv2d",
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: "depthwise_conv2d",
    schema.BuiltinOperator.FULLY_CONNECTED: "linear",
}
_OPTIONS: dict[Kind, Any] = {"conv2d": schema.Conv2DOptions, "depthwise_conv2d": schema.DepthwiseConv2DOptions}


@dataclass(frozen=True)
class Likeness:
    """What a layer is known by in a file, whose padding and fused activations are written in other ways."""

    kind: Kind
    in_channels: int
    out_channels: int
    out_hw: tuple[int, int]  # of a linear layer: rows, 1
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int

    @staticmethod
    def of(operation: OpSignature) -> Likeness:
        """The likeness of a layer that has weights."""
        return Likeness(
            operation.kind,
            operation.in_channels,
            operation.out_channels,
            operation.out_hw,
            operation.kernel,
            operation.stride,
            operation.groups,
        )


@dataclass(frozen=True)
class WrittenLayer:
    """A layer of a file; `rows_after`: positions (height times width, tokens) of the largest result with the layer's
    channels that other operators make before the next layer, 0 where there is none.

    One whose weights are computed (attention with a single head is written so) is like no layer of a model.
    """

    likeness: Likeness | None
    rows_after: int


def read_content(file: Path) -> bytes:
    """The bytes of a .tflite file, every offset, size and index of which holds.

    Raises:
        UsageError: the file cannot be read, is no .tflite file, or is damaged.
    """
    return read_whole(file)


def read_model(file: Path) -> Any:
    """A .tflite file as the schema's own objects (`ModelT`); lists that it does not set are empty.

    Raises:
        UsageError: as `read_content`.
    """
    content = read_content(file)
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    except UNREADABLE as error:
        raise damaged(f"an operator's options cannot be read ({error})", str(file)) from error
    _set_lists(model, ("operatorCodes", "buffers"))
    for graph in model.subgraphs:
        _set_lists(graph, ("tensors", "inputs", "outputs", "operators"))
        for operator in graph.operators:
            _set_lists(operator, ("inputs", "outputs"))
    return model


def _set_lists(table: Any, names: tuple[str, ...]) -> None:
    """A list that a table does not set is None in the schema's objects, which no reader expects."""
    for name in names:
        if getattr(table, name) is None:
            setattr(table, name, [])


def read_layers(file: Path) -> list[WrittenLayer]:
    """The convolutions and linear layers of a file, in its order.

    Raises:
        UsageError: the file cannot be read, is no .tflite file, or is damaged.
    """
    model = schema.Model.GetRootAs(read_content(file), 0)
    try:
        return _layers(model)
    except UNREADABLE as error:
        raise damaged(error, str(file)) from error


def _layers(model: Any) -> list[WrittenLayer]:
    graph = model.Subgraphs(0)
    found: list[WrittenLayer] = []
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = _KINDS.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
        result = _shape(graph, operator.Outputs(0)) if operator.OutputsLength() else []
        if kind is not None:
            weights = model.Buffers(graph.Tensors(operator.Inputs(1)).Buffer())
            computed = not (weights.DataLength() or weights.Size())  # of a large file they lie behind the tables
            found.append(WrittenLayer(None if computed else _likeness(graph, operator, kind), 0))
        elif found and found[-1].likeness is not None and found[-1].likeness.out_channels in _channel_axes(result):
            rows = math.prod(result) // found[-1].likeness.out_channels
            found[-1] = replace(found[-1], rows_after=max(found[-1].rows_after, rows))
    return found


def _likeness(graph: Any, operator: Any, kind: Kind) -> Likeness:
    source, weights, result = (
        _shape(graph, tensor) for tensor in (operator.Inputs(0), operator.Inputs(1), operator.Outputs(0))
    )
    if kind == "linear":
        rows = math.prod(source) // weights[1]
        return Likeness(kind, weights[1], weights[0], (rows, 1), (1, 1), (1, 1), 1)
    table, options = operator.BuiltinOptions(), _OPTIONS[kind]()
    options.Init(table.Bytes, table.Pos)
    channels, result_channels = source[3], result[3]
    depthwise = kind == "depthwise_conv2d"
    return Likeness(
        # With several filters a channel (one channel's stem too) it is a grouped convolution in PyTorch.
        "depthwise_conv2d" if depthwise and channels == result_channels > 1 else "conv2d",
        channels,
        result_channels,
        (result[1], result[2]),
        (weights[1], weights[2]),
        (options.StrideH(), options.StrideW()),
        channels if depthwise else channels // weights[3],
    )


def _channel_axes(shape: list[int]) -> tuple[int, ...]:
    """Sizes of the axes that channels can lie on: the last, and of images as PyTorch has them the second."""
    return (*shape[-1:], *(shape[1:2] if len(shape) == 4 else ()))


def _shape(graph: Any, tensor: int) -> list[int]:
    """The sizes of a tensor; none of a scalar."""
    found = graph.Tensors(tensor)
    return [found.Shape(axis) for axis in range(found.ShapeLength())]
