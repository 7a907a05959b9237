"""Padded and ceil-mode pools, rewritten so that TFLite can quantize them.

torch pads a max pool with minus infinity. The converter writes that down as a constant of its own (PADV2), and no int8
scale holds it. Where the input cannot be negative (after ReLU and the like) padding with zeros gives the same maxima;
elsewhere padding with the border's own values does, since every window that reaches the padding holds the border too.

An average over a window that reaches the padding divides by fewer values than the window has, where padding does not
count, and where a ceil-mode window reaches beyond the padding. The converter writes that as a general reduction, which
the quantizer does not take. Padded with zeros, the plain average differs from it by a factor that is the same for all
images: one constant for each place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from exporters.relus import is_not_negative


def pad_max_pools(program: ExportedProgram) -> None:
    """Move the padding of every max pool out of it, in place; the program computes what it did."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not torch.ops.aten.max_pool2d.default:
            continue
        given = _arguments(node)
        sides = _sides(given, node)
        if not any(sides) or any(d != 1 for d in _pair(given.get("dilation", 1))):
            continue
        mode = "constant" if is_not_negative(given["self"]) else "replicate"
        with graph.inserting_before(node):
            padded = _padded(graph, given["self"], sides, mode)
        node.args = (padded, given["kernel_size"], given.get("stride") or given["kernel_size"])
        node.kwargs = {}
    program.graph_module.recompile()


def average_plainly(program: ExportedProgram) -> None:
    """Make every average pool with padding or in ceil mode a plain one of a padded input, in place, times a constant
    where it divides by fewer values than its window has; the program computes what it did, to rounding."""
    module = program.graph_module
    for number, node in enumerate(list(module.graph.nodes)):
        if node.op != "call_function" or node.target is not torch.ops.aten.avg_pool2d.default:
            continue
        given = _arguments(node)
        sides = _sides(given, node)
        if given.get("divisor_override") is not None or not any(sides) or _divides_plainly(given, sides):
            continue
        kernel, stride = given["kernel_size"], given.get("stride") or given["kernel_size"]
        ones = torch.ones((1, 1, *given["self"].meta["val"].shape[2:]))
        asked = torch.ops.aten.avg_pool2d.default(ones, *node.args[1:], **node.kwargs)
        plain = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(ones, sides), kernel, stride)
        name = f"pool_factor_{number}"
        module.register_buffer(name, asked / plain, persistent=False)
        with module.graph.inserting_before(node):
            padded = _padded(module.graph, given["self"], sides, "constant")
            pooled = module.graph.call_function(torch.ops.aten.avg_pool2d.default, (padded, kernel, stride))
            pooled.meta["val"] = node.meta["val"]
            factor = module.graph.get_attr(name)
            factor.meta["val"] = asked / plain
            scaled = module.graph.call_function(torch.ops.aten.mul.Tensor, (pooled, factor))
            scaled.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(scaled)
        module.graph.erase_node(node)
    module.recompile()


def _divides_plainly(given: dict[str, Any], sides: Sequence[int]) -> bool:
    """Whether every window divides by all of its values: padding counts, and no window reaches beyond it."""
    height, width = _pair(given.get("padding", 0))
    return bool(given.get("count_include_pad", True)) and list(sides) == [width, width, height, height]


def _sides(given: dict[str, Any], node: fx.Node) -> list[int]:
    """What the windows reach beyond the input: left, right, top, bottom (as `pad` takes them), ceil mode included."""
    sides: list[int] = []
    kernel, stride = _pair(given["kernel_size"]), _pair(given.get("stride") or given["kernel_size"])
    dilation, padding = _pair(given.get("dilation", 1)), _pair(given.get("padding", 0))
    for axis in (1, 0):
        size, out = given["self"].meta["val"].shape[2 + axis], node.meta["val"].shape[2 + axis]
        end = (out - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1  # of the last window
        ceil = bool(given.get("ceil_mode", False))
        after = max(padding[axis], end - padding[axis] - size) if ceil else padding[axis]
        sides += [padding[axis], after]
    return sides


def _padded(graph: fx.Graph, source: fx.Node, sides: Sequence[int], mode: str) -> fx.Node:
    padded = graph.call_function(
        torch.ops.aten.pad.default, (source, list(sides), mode, *([0.0] * (mode == "constant")))
    )
    padded.meta["val"] = torch.ops.aten.pad.default(source.meta["val"], list(sides))
    return padded


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by their names."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return int(values[0]), int(values[-1])
