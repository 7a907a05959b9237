"""The recorded model of a merge: which module's tensors each operator reads, and whether they are its own."""

from __future__ import annotations

from collections import Counter

import torch
from torch import fx, nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.graph.record import record

aten = torch.ops.aten
CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}
LINEAR = aten.linear.default


class Graph:
    """A module recorded in eval mode, with the path of the tensor that each input node stands for.

    Raises:
        ModelError: the model cannot be recorded.
    """

    def __init__(self, module: nn.Module, example: torch.Tensor) -> None:
        self.module = module
        trace = record(module, example)
        self.tensor = {node.name: name for node, name in trace.parameters.items()}
        trace.graph.eliminate_dead_code()
        self.nodes = list(trace.graph.nodes)
        self.owners = Counter(id(t) for m in module.modules() for t in m._parameters.values() if t is not None)

    def path(self, node: fx.Node, position: int, suffix: str) -> str | None:
        """The module whose tensor `suffix` a node has at this position."""
        value = node.args[position] if len(node.args) > position else None
        name = self.tensor.get(value.name, "") if isinstance(value, fx.Node) else ""
        path, _, last = name.rpartition(".")
        return path if last == suffix else None

    def layer(self, node: fx.Node) -> str:
        """The path of the convolution or linear layer that a node is, with tensors that nothing else reads.

        Raises:
            NotAlone: there is none, or they are not its own.
        """
        if node.target not in CONVOLUTIONS and node.target is not LINEAR:
            raise NotAlone(f"{operator(node)}, not a convolution or linear layer")
        path = self.path(node, 1, "weight")
        if path is None:
            raise NotAlone(f"{operator(node)}, whose weight is computed")
        layer = self.module.get_submodule(path)
        if not isinstance(layer, _ConvNd | nn.Linear):
            raise NotAlone(f"`{path}`, a {type(layer).__name__}")
        if self.owners[id(layer.weight)] > 1:  # perhaps this is another layer's, of whose bias nothing is said here
            raise NotAlone(f"`{path}`, whose weight is shared")
        bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        if self._tensor(bias) is not layer.bias or (bias is None) != (layer.bias is None):
            raise NotAlone(f"`{path}`, whose bias is computed")
        uses = max(len(n.users) for n in (node.args[1], bias) if isinstance(n, fx.Node))  # whatever reads them
        held = max(self.owners[id(t)] for t in (layer.weight, layer.bias) if t is not None)
        if uses > 1 or held > 1:
            raise NotAlone(f"`{path}`, whose weight is shared")
        return path

    def _tensor(self, node: object) -> torch.Tensor | None:
        """The module's tensor that a node stands for; one that several layers hold has the name of the first."""
        path, _, last = self.tensor.get(node.name, "").rpartition(".") if isinstance(node, fx.Node) else ("", "", "")
        tensor = getattr(self.module.get_submodule(path), last, None) if last else None
        return tensor if isinstance(tensor, torch.Tensor) else None


class NotAlone(Exception):
    """What stands where a layer with tensors of its own is looked for."""


def operator(node: fx.Node) -> str:
    return f"`{getattr(node.target, '__name__', node.target)}`" if node.op == "call_function" else "the input"
