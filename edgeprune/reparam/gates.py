"""Fold constant gates (what is left of removed squeeze-excitations) into a neighbouring layer; the algebra is exact.

conv(c * x) = W' x + b,  W' = W c over input channels     (padding with zeros, or with x's own values)
c * conv(x) = W' x + b',  W' = c W over output channels, b' = c b
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.reparam.graph import CONVOLUTIONS, Graph, NotAlone, aten
from edgeprune.reparam.scaling import over_inputs, over_outputs
from edgeprune.space.gates import ConstantGate, Unity


def fold_gates(module: nn.Module, example: Tensor) -> None:
    """Fold each constant gate into the convolution that reads the product, else into the one whose result it
    multiplies; in place. One that has neither stays: a product with constants.

    Args:
        module: in eval mode, its batch norms folded.

    Raises:
        ModelError: the model cannot be traced.
    """
    if not any(isinstance(part, ConstantGate) for part in module.modules()):
        return
    graph = Graph(module, example)
    places = {f"{name}.value": name for name, part in module.named_modules() if isinstance(part, ConstantGate)}
    with torch.no_grad():
        for node in graph.nodes:
            name = places.get(graph.tensor.get(node.name, ""))
            if name is not None and _folded(graph, node, module.get_parameter(f"{name}.value").double()):
                module.set_submodule(name, Unity())


def _folded(graph: Graph, value: fx.Node, factor: Tensor) -> bool:
    """Whether the factor that a node holds went into a layer."""
    product = value
    while product.target is not aten.mul.Tensor:
        if len(product.users) != 1:
            return False
        product = next(iter(product.users))
    image = next((operand for operand in product.all_input_nodes if operand.meta["val"].numel() > factor.numel()), None)
    if image is None or len(product.all_input_nodes) != 2:
        return False
    reader = next(iter(product.users)) if len(product.users) == 1 else None
    if reader is not None and reader.target in CONVOLUTIONS and reader.args[0] is product:
        layer = _layer(graph, reader)
        if layer is not None:
            layer.weight = _like(layer.weight, over_inputs(layer, factor))
            return True
    if image.target in CONVOLUTIONS and len(image.users) == 1:
        layer = _layer(graph, image)
        if layer is not None:
            layer.weight = _like(layer.weight, over_outputs(layer, factor))
            if layer.bias is not None:
                layer.bias = _like(layer.bias, layer.bias.double() * factor)
            return True
    return False


def _layer(graph: Graph, node: fx.Node) -> _ConvNd | None:
    try:
        layer = graph.module.get_submodule(graph.layer(node))
    except NotAlone:
        return None
    assert isinstance(layer, _ConvNd)
    return layer


def _like(parameter: Tensor, value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(parameter.dtype), parameter.requires_grad)
