"""Rounding weights to half precision so that what is rounded away cancels out. Runs inside a conversion child.

Rounded one by one, the weights of a filter are off by up to 2^-12 each, and nothing makes these errors cancel. Where a
filter takes the difference of large inputs (the edge filters of MobileNet's depthwise layers) what is left is far
greater than the rounding of the activations: MobileNetV2's logits keep 37 dB. Here each filter's weights are rounded in
turn, those that matter most first, and each takes over the error of those before it, so that the filter's mean output
stays what it was, its rounded bias included. (Error diffusion; the mean is what bias correction mends afterwards,
Nagel et al. 2019, arXiv 1906.04721, section 4.2, but a half-precision bias is too coarse for it.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

NUDGE = 2.0**-10  # the most that a weight takes over, relative to itself: one step of half precision
SMALLEST = 1e-6  # a mean below this cannot carry an error
_CHANNEL_DIM = {torch.ops.aten.conv1d.default: 1, torch.ops.aten.conv2d.default: 1, torch.ops.aten.linear.default: -1}


def round_to_half(program: ExportedProgram, images: Tensor) -> None:
    """Replace the weights and biases of a program's convolutions and linear layers by values that fp16 holds exactly.

    Args:
        program: not yet decomposed; its weights are replaced, those of the module it came from stay.
        images: typical inputs (N, C, H, W), preprocessed; the inputs' mean of each layer is taken on them.
    """
    for layer, means in _input_means(program, images).items():
        carried = None
        if layer.bias is not None:
            bias = program.state_dict[layer.bias].detach()
            carried = bias.double() - bias.half().double()
            program.state_dict[layer.bias] = nn.Parameter(bias.half().to(bias.dtype))
        weight = program.state_dict[layer.weight].detach()
        program.state_dict[layer.weight] = nn.Parameter(rounded(weight, means, layer.groups, carried))


def rounded(weight: Tensor, means: Tensor, groups: int = 1, carried: Tensor | None = None) -> Tensor:
    """Weights that fp16 holds exactly, with each filter's mean output kept.

    Args:
        weight: (out, in / groups, ...).
        means: of the input's channels, (in,).
        carried: an error of the mean outputs that the weights are to make good, (out,).
    """
    filters, per_group = weight.shape[0], weight.shape[1]
    exact = weight.detach().double().reshape(filters, -1)
    share = means.double().view(groups, per_group).repeat_interleave(filters // groups, 0)
    share = share.repeat_interleave(exact.shape[1] // per_group, 1)  # mean input of each weight
    order = (exact * share).abs().argsort(stable=True, dim=1, descending=True)
    error = torch.zeros(filters, dtype=torch.float64) if carried is None else carried.double().clone()
    result = torch.empty_like(exact)
    for place in order.T:
        at = place[:, None]
        value, mean = exact.gather(1, at)[:, 0], share.gather(1, at)[:, 0]
        wanted = torch.where(mean.abs() > SMALLEST, error / mean, 0.0)
        limit = value.abs() * NUDGE
        given = (value + wanted.clamp(-limit, limit)).half().double()
        error -= (given - value) * mean
        result.scatter_(1, at, given[:, None])
    return result.reshape(weight.shape).to(weight.dtype)


@dataclass(frozen=True)
class _Layer:
    weight: str
    bias: str | None
    groups: int


class _Means(fx.Interpreter):
    """Runs a program and sums, for each layer with weights, its input over all but the channels."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.sums: dict[_Layer, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        layer = _layer(n)
        if layer is not None:
            source = n.args[0]
            assert isinstance(source, fx.Node)
            values = self.env[source]
            channels = values.movedim(_CHANNEL_DIM[n.target], 0).flatten(1)  # type: ignore[index]
            self.sums[layer] = self.sums.get(layer, 0) + channels.double().mean(1)
        return super().run_node(n)


def _layer(node: fx.Node) -> _Layer | None:
    if node.op != "call_function" or node.target not in _CHANNEL_DIM:
        return None
    weight = node.args[1]
    bias = node.args[2] if len(node.args) > 2 else None
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    groups = node.args[6] if len(node.args) > 6 else 1
    assert isinstance(groups, int)
    return _Layer(str(weight.target), str(bias.target) if isinstance(bias, fx.Node) else None, groups)


def _input_means(program: ExportedProgram, images: Tensor) -> dict[_Layer, Tensor]:
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    means = _Means(module)
    with torch.no_grad():
        for image in images:
            means.run(image[None])
    return {layer: total / len(images) for layer, total in means.sums.items()}
