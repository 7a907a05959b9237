"""Softmax over images, rewritten so that ExecuTorch's XNNPACK delegate takes it over the right axis.

XNNPACK takes a softmax over the axis that lies densely in memory. The delegate keeps what convolutions answer with
the channels there, and hands it to a softmax over another axis as it lies: the sums run over the channels, with no
error and a wrong answer (executorch 1.4.1; attention whose maps go through 1x1 convolutions meets it). Seen as rows,
(N * C * H, W), the values have to be laid out as torch lays them out.
"""

from __future__ import annotations

import math

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument

_IMAGES = (
    *("conv2d", "convolution", "conv_transpose2d", "batch_norm", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"),
    *("upsample_bilinear2d", "upsample_nearest2d", "pixel_shuffle", "pad"),
)
_LAID_OUT = ("view", "reshape", "permute", "transpose", "flatten", "matmul", "bmm", "linear", "layer_norm", "softmax")


def softmax_over_rows(program: ExportedProgram) -> None:
    """Take the softmax of every image that convolutions may have left channels-last over rows, in place; the program
    computes what it did."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not torch.ops.aten.softmax.int:
            continue
        source, dim = node.args[0], node.args[1]
        assert isinstance(source, fx.Node)
        assert isinstance(dim, int)
        shape = [int(size) for size in source.meta["val"].shape]
        if len(shape) != 4 or dim % 4 != 3 or not _may_lie_channels_last(source):
            continue
        with graph.inserting_before(node):
            rows = _viewed(graph, source, [math.prod(shape[:3]), shape[3]])
        with graph.inserting_after(node):
            back = _viewed(graph, node, shape)
        for spec in program.graph_signature.output_specs:
            if spec.arg.name == node.name:
                spec.arg = TensorArgument(name=back.name)
        node.replace_all_uses_with(back, delete_user_cb=lambda user, back=back: user is not back)
        node.args = (rows, 1, *node.args[2:])
        node.meta["val"] = node.meta["val"].reshape(rows.meta["val"].shape)
    program.graph_module.recompile()


def _viewed(graph: fx.Graph, node: fx.Node, shape: list[int]) -> fx.Node:
    viewed = graph.call_function(torch.ops.aten.reshape.default, (node, shape))
    viewed.meta["val"] = torch.ops.aten.reshape.default(node.meta["val"], shape)
    return viewed


def _may_lie_channels_last(node: fx.Node) -> bool:
    """Whether an operator on images is behind a value, with nothing between that lays it out anew."""
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        name = str(getattr(current.target, "_opname", "")).rstrip("_") if current.op == "call_function" else ""
        if name in _IMAGES:
            return True
        if current not in seen and name and name not in _LAID_OUT:
            waiting += current.all_input_nodes
        seen.add(current)
    return False
