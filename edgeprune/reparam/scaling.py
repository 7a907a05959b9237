"""A layer's weight times a factor for each of its channels, in float64: what folding comes down to."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


def over_outputs(layer: _ConvNd | nn.Linear, factor: Tensor) -> Tensor:
    """The weight times a factor for each output channel."""
    weight = layer.weight.double()
    if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, ...): the output channels of a group are dim 1
        grouped = weight.unflatten(0, (layer.groups, -1))
        factors = factor.view(layer.groups, 1, -1, *[1] * (weight.ndim - 2))
        return (grouped * factors).flatten(0, 1)
    return weight * factor.view(-1, *[1] * (weight.ndim - 1))


def over_inputs(layer: _ConvNd, factor: Tensor) -> Tensor:
    """The weight times a factor for each input channel."""
    weight = layer.weight.double()
    if isinstance(layer, _ConvTransposeNd):
        return weight * factor.view(-1, *[1] * (weight.ndim - 1))
    grouped = weight.unflatten(0, (layer.groups, -1))  # (groups, out / groups, in / groups, ...)
    return (grouped * factor.view(layer.groups, 1, -1, *[1] * (weight.ndim - 2))).flatten(0, 1)
