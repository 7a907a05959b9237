"""ReLUs that change nothing: of what cannot be negative. One stays where a residual branch went as a whole.

XNNPACK has no int8 ReLU that stands alone. LiteRT's own kernel takes several times what a convolution takes there (on a
ResNet-20 without six of its branches 55 us against 8 us, so that the pruned file was slower than the unpruned one).
"""

from __future__ import annotations

import torch
from torch import fx
from torch.export import ExportedProgram

_RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
_NOT_NEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softmax")
_PASSING = ("cat", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "dropout", "alias", "contiguous", "slice")


def drop_idle_relus(program: ExportedProgram) -> None:
    """Take out every ReLU whose input cannot be negative, in place; the program computes what it did, to the bit."""
    graph = program.graph_module.graph
    results = set(program.graph.output_node().all_input_nodes)
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target not in _RELUS or node in results:
            continue
        (source,) = node.all_input_nodes
        if is_not_negative(source):
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    program.graph_module.recompile()


def is_not_negative(node: object) -> bool:
    """Whether a node of a program is known to give nothing below zero."""
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    name = str(getattr(node.target, "_opname", "")).rstrip("_")
    if name in _NOT_NEGATIVE:
        return True
    if name in ("hardtanh", "clamp", "clamp_min"):
        low = node.args[1] if len(node.args) > 1 else node.kwargs.get("min", -1)
        return isinstance(low, int | float) and low >= 0
    return name in _PASSING and all(is_not_negative(n) for n in node.all_input_nodes)
