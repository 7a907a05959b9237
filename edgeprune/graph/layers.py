"""The operations of a traced model that cost time, with their widths tied to labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx

from edgeprune.graph.flow import Flow, arguments
from edgeprune.graph.labels import Label
from edgeprune.graph.operations import Kind, OpSignature
from edgeprune.graph.rules.elementwise import ACTIVATIONS, PASSING
from edgeprune.graph.trace import describe, module_path, operator_name, shape_of

_BINARY: dict[str, Kind] = {"add": "add", "sub": "add", "mul": "mul", "div": "mul"}
_FUSES_NORM = ("conv2d", "depthwise_conv2d", "linear")
_FUSES_ACTIVATION = (*_FUSES_NORM, "add")
_FUSED = ("relu", "relu6")


@dataclass(frozen=True)
class LabelledLayer:
    """A layer whose widths are still labels (None: no channels can go)."""

    name: str
    operation: OpSignature
    in_label: Label
    out_label: Label


def find_layers(flow: Flow) -> list[LabelledLayer]:
    """Operations in the order of the graph, as a runtime sees them at batch 1.

    Batch norm after a convolution or linear layer is folded; on its own it is one `mul` and one `add` with a
    broadcast operand. relu and relu6 are fused into the convolution, linear layer or addition before them when
    nobody else reads its result. Reshapes, joins and padding are not layers, nor is what is computed from parameters
    alone: that is done once, at export.
    """
    live: set[fx.Node] = set(flow.trace.inputs)
    found: list[LabelledLayer] = []
    tails: dict[fx.Node, int] = {}  # node -> the layer whose result it is, while fusing into it is possible
    for node in flow.trace.graph.nodes:
        if live.intersection(node.all_input_nodes):
            live.add(node)
        if node not in live or node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
            continue
        name = operator_name(node)
        if name in PASSING:
            _follow(tails, node)
        elif name in ACTIVATIONS:
            function = _function(node, name)
            tail = _tail(tails, node)
            if tail is not None and function in _FUSED and _accepts(found[tail], _FUSES_ACTIVATION):
                found[tail] = _with_function(found[tail], function)
                continue
            found.append(_elementwise(flow, node, "activation", function=function))
        elif name == "batch_norm":
            tail = _tail(tails, node)
            if tail is not None and _accepts(found[tail], _FUSES_NORM):
                tails[node] = tail
                continue
            found += [_elementwise(flow, node, kind, broadcast=True) for kind in ("mul", "add")]
            tails[node] = len(found) - 1
        elif (layer := _layer(flow, node, name)) is not None:
            found.append(layer)
            tails[node] = len(found) - 1
    return _uniquely_named(found)


def _layer(flow: Flow, node: fx.Node, name: str) -> LabelledLayer | None:
    if name == "conv2d" and len(shape_of(node)) == 4:
        return _convolution(flow, node)
    if name == "linear":
        return _linear(flow, node)
    if name in _BINARY:
        return _elementwise(flow, node, _BINARY[name], broadcast=_broadcasts(node))
    if name in ("avg_pool2d", "max_pool2d", "adaptive_avg_pool2d"):
        return _pooling(flow, node, name)
    if name == "mean" and node in flow.read:
        return _mean(flow, node)
    return None


def _convolution(flow: Flow, node: fx.Node) -> LabelledLayer:
    args = arguments(node)
    _, channels, height, width = shape_of(args["input"])
    weight = shape_of(args["weight"])
    kernel, groups = (weight[2], weight[3]), int(args["groups"])
    dilation, stride = _pair(args["dilation"]), _pair(args["stride"])
    padding = args["padding"]
    if padding == "same":
        # An odd total cannot be written as equal padding: the input is taken as padded beforehand.
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if any(amount % 2 for amount in total):
            height, width, total = height + total[0], width + total[1], [0, 0]
        padding = [amount // 2 for amount in total]
    elif padding == "valid":
        padding = [0, 0]
    operation = OpSignature(
        kind="depthwise_conv2d" if groups == channels == weight[0] and groups > 1 else "conv2d",
        in_channels=channels,
        out_channels=weight[0],
        height=height,
        width=width,
        kernel=kernel,
        stride=stride,
        padding=_pair(padding),
        dilation=dilation,
        groups=groups,
    )
    return LabelledLayer(
        _parameter_owner(flow, node, "weight"), operation, flow.labels(args["input"])[1], flow.labels(node)[1]
    )


def _linear(flow: Flow, node: fx.Node) -> LabelledLayer:
    args = arguments(node)
    shape, out = shape_of(args["input"]), shape_of(node)[-1]
    rows = max(1, math.prod(shape[:-1]) // images_of(flow))  # tokens may lie in front of the batch, or in it
    operation = OpSignature(kind="linear", in_channels=shape[-1], out_channels=out, height=rows)
    return LabelledLayer(
        _parameter_owner(flow, node, "weight"), operation, flow.labels(args["input"])[-1], flow.labels(node)[-1]
    )


def images_of(flow: Flow) -> int:
    """How many images the model was recorded with."""
    return next((shape_of(node)[0] for node in flow.trace.inputs), 1)


def _elementwise(
    flow: Flow, node: fx.Node, kind: Kind, *, function: str = "", broadcast: bool = False
) -> LabelledLayer:
    label, channels, height, width = _geometry(flow, node)
    name = node_name(node) + (f":{kind}" if operator_name(node) == "batch_norm" else "")
    operation = OpSignature(
        kind=kind,
        in_channels=channels,
        out_channels=channels,
        height=height,
        width=width,
        function=function,
        broadcast=broadcast,
    )
    return LabelledLayer(name, operation, label, label)


def _pooling(flow: Flow, node: fx.Node, name: str) -> LabelledLayer | None:
    args = arguments(node)
    source = args["self"]
    label, channels, height, width = _geometry(flow, source)
    if len(shape_of(source)) != 4:
        return None
    out_height, out_width = shape_of(node)[2:]
    operation = OpSignature(kind="mean", in_channels=channels, out_channels=channels, height=height, width=width)
    if name == "adaptive_avg_pool2d":
        if (out_height, out_width) != (1, 1):
            stride = (max(1, height // out_height), max(1, width // out_width))
            kernel = (height - (out_height - 1) * stride[0], width - (out_width - 1) * stride[1])
            operation = replace(operation, kind="avg_pool2d", kernel=kernel, stride=stride)
    else:
        kernel = _pair(args["kernel_size"])
        operation = replace(
            operation,
            kind="avg_pool2d" if name == "avg_pool2d" else "max_pool2d",
            kernel=kernel,
            stride=_pair(args["stride"]) if args["stride"] else kernel,
            padding=_pair(args["padding"]),
            dilation=_pair(args.get("dilation", 1)),
        )
    return LabelledLayer(node_name(node), operation, label, label)


def _mean(flow: Flow, node: fx.Node) -> LabelledLayer | None:
    """A mean over height and width (or over tokens) is a layer; one over channels is not followed."""
    source = arguments(node)["self"]
    if len(shape_of(source)) < 3:
        return None
    label, channels, height, width = _geometry(flow, source)
    operation = OpSignature(kind="mean", in_channels=channels, out_channels=channels, height=height, width=width)
    return LabelledLayer(node_name(node), operation, label, label)


def _geometry(flow: Flow, node: fx.Node) -> tuple[Label, int, int, int]:
    """(channel label, channels, height, width) of a value: NCHW, or channels last where only those carry labels."""
    shape, labels = shape_of(node), flow.labels(node)
    if len(shape) == 4 and labels[1] is not None and labels[3] is not None:  # (batch, heads, tokens, dimensions)
        both = (shape[1], shape[3])
        return flow.atoms.merge((labels[1], labels[3]), both, describe(node)), math.prod(both), shape[2], 1
    if len(shape) == 4 and (labels[1] is not None or labels[3] is None):
        return labels[1], shape[1], shape[2], shape[3]
    if len(shape) == 4:
        return labels[3], shape[3], shape[1], shape[2]
    if not shape:
        return None, 1, 1, 1
    return labels[-1], shape[-1], math.prod(shape[1:-1]), 1


def _function(node: fx.Node, name: str) -> str:
    """The name of an activation, clamps to 0.. and 0..6 by their usual names."""
    if name in ("hardtanh", "clamp", "clamp_min"):
        args = arguments(node)
        low, high = args.get("min_val", args.get("min")), args.get("max_val", args.get("max"))
        if low == 0 and high in (6, None):
            return "relu6" if high == 6 else "relu"
        return "clamp"
    return "clamp" if name == "clamp_max" else name


def _broadcasts(node: fx.Node) -> bool:
    """Whether an operand is smaller than the result (or is a number)."""
    shapes = [shape_of(n) for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)]
    full = shape_of(node)
    same_operand_twice = len(shapes) == 1 and sum(arg in node.all_input_nodes for arg in node.args) > 1
    return not same_operand_twice and (len(shapes) < 2 or any(shape != full for shape in shapes))


def _accepts(layer: LabelledLayer, kinds: tuple[str, ...]) -> bool:
    return layer.operation.kind in kinds and not layer.operation.function


def _with_function(layer: LabelledLayer, function: str) -> LabelledLayer:
    return replace(layer, operation=replace(layer.operation, function=function))


def _tail(tails: dict[fx.Node, int], node: fx.Node) -> int | None:
    """The layer whose result a node reads, if the node is its only reader."""
    source = node.all_input_nodes[0]
    return tails.get(source) if len(source.users) == 1 else None


def _follow(tails: dict[fx.Node, int], node: fx.Node) -> None:
    tail = _tail(tails, node)
    if tail is not None:
        tails[node] = tail


def _parameter_owner(flow: Flow, node: fx.Node, argument: str) -> str:
    parameter = flow.parameters.get(arguments(node)[argument])
    return parameter.removesuffix(f".{argument}") if parameter else node_name(node)


def node_name(node: fx.Node) -> str:
    path = module_path(node)
    return f"{path}.{node.name}" if path else node.name


def _uniquely_named(layers: list[LabelledLayer]) -> list[LabelledLayer]:
    """Names are unique: the second use of a shared layer is called NAME@1."""
    uses: dict[str, int] = {}
    result = []
    for layer in layers:
        count = uses.get(layer.name, 0)
        uses[layer.name] = count + 1
        result.append(replace(layer, name=f"{layer.name}@{count}") if count else layer)
    return result


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return (int(values[0]), int(values[-1]))
