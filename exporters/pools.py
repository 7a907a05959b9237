"""Padded max pools, rewritten so that TFLite can quantize them.

torch pads a max pool with minus infinity. The converter writes that down as a constant of its own (PADV2), and no int8
scale holds it. Where the input cannot be negative (after ReLU and the like) padding with zeros gives the same maxima;
elsewhere padding with the border's own values does, since every window that reaches the padding holds the border too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

_NOT_NEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softmax")
_PASSING = ("cat", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "dropout", "alias", "contiguous", "slice")


def pad_max_pools(program: ExportedProgram) -> None:
    """Move the padding of every max pool out of it, in place; the program computes what it did."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not torch.ops.aten.max_pool2d.default:
            continue
        source, kernel, stride, padding, dilation, ceil = _arguments(node)
        if not any(padding) or ceil or any(d != 1 for d in dilation):
            continue
        height, width = padding
        mode = "constant" if _is_not_negative(source) else "replicate"
        with graph.inserting_before(node):
            padded = graph.call_function(
                torch.ops.aten.pad.default,
                (source, [width, width, height, height], mode, *([0.0] * (mode == "constant"))),
            )
            padded.meta["val"] = torch.ops.aten.pad.default(source.meta["val"], [width, width, height, height])
        node.args = (padded, kernel, stride)
        node.kwargs = {}
    program.graph_module.recompile()


def _arguments(node: fx.Node) -> tuple[fx.Node, Any, Any, Sequence[int], Sequence[int], bool]:
    names = [argument.name for argument in torch.ops.aten.max_pool2d.default._schema.arguments]
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    kernel = given["kernel_size"]
    stride = given.get("stride") or kernel
    return (
        given["self"],
        kernel,
        stride,
        _pair(given.get("padding", 0)),
        _pair(given.get("dilation", 1)),
        bool(given.get("ceil_mode", False)),
    )


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return int(values[0]), int(values[-1])


def _is_not_negative(node: Any) -> bool:
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    name = str(getattr(node.target, "_opname", "")).rstrip("_")
    if name in _NOT_NEGATIVE:
        return True
    if name in ("hardtanh", "clamp", "clamp_min"):
        low = node.args[1] if len(node.args) > 1 else node.kwargs.get("min", -1)
        return isinstance(low, int | float) and low >= 0
    return name in _PASSING and all(_is_not_negative(n) for n in node.all_input_nodes)
