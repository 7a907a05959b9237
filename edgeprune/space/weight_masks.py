"""Unstructured magnitude pruning: which single weights are zero, one threshold for all layers or one share for each.

After "Pruning Compact ConvNets for Efficient Inference" (arXiv 2301.04502): *global* sorts all weights together,
*uniform* sets the same share of every layer to zero. What is chosen is a mask; zeros stay through re-training where the
mask is given to `edgeprune.training.loop.tune`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError, UsageError
from edgeprune.graph.weights import Weight, find_weights

Scope = Literal["global", "uniform"]
Which = Literal["1x1", "all"] | Collection[str]
Masks = dict[str, Tensor]
_WHICH = "1x1 convolution (of stride 1, without groups and padding, with a weight of its own)"


def magnitude_masks(
    module: nn.Module,
    example: Tensor,
    *,
    zeros: float,
    scope: Scope = "global",
    block: int = 1,
    which: Which = "1x1",
    costs: Mapping[str, float] | None = None,
    reaching: bool = False,
) -> Masks:
    """The weights of a model that stay, as `least_weights` says: parameter name -> bool tensor of its shape.

    Args:
        example: one image, (1, C, H, W), of which only shape and dtype count.
        which: 1x1 convolutions of stride 1 without groups and padding (those that have sparse kernels), every
            convolution and linear layer, or those of these whose weights are named. Weights that the model computes
            anew at each call (standardized convolutions) are none of these.

    Raises:
        UsageError: as `least_weights`, or there is no such layer.
        ModelError: as `least_weights`, or the model cannot be traced.
    """
    weights = _weights(module, example, which)
    if not weights:
        raise UsageError(
            f"there is no {_WHICH if which == '1x1' else 'such layer with weights of its own'} to prune",
            where=type(module).__name__,
            hint="take sparse.zeros and sparse.target out of the recipe for this model",
        )
    return least_weights(weights, zeros=zeros, scope=scope, block=block, costs=costs, reaching=reaching)


def least_weights(
    weights: Mapping[str, Tensor],
    *,
    zeros: float,
    scope: Scope = "global",
    block: int = 1,
    costs: Mapping[str, float] | None = None,
    reaching: bool = False,
) -> Masks:
    """Masks of weights, (out, in, ...): name -> bool tensor of the weight's shape, false where it becomes zero.

    Weights go in blocks of `block` neighbouring output channels that read the same input (one kernel position), least
    mean square first: sparse kernels that take two channels at a time need zeros that come in pairs. A last block may
    be smaller. Each layer keeps its largest block, so that none falls silent.

    Args:
        zeros: share that becomes zero, from 0 (no masks) to below 1: of the weights, or of what they cost.
        costs: what one weight costs (see `macs_of_weights`), by name; 1 each without.
        reaching: whether the share is the least that has to go, not the most.

    Returns:
        masks that zero the least blocks first: as many as come nearest to the share without passing it, or where it is
        to be reached the fewest that do (of each layer, with a uniform share).

    Raises:
        UsageError: a share outside of 0 to 1, or one so high that a layer would fall silent.
        ModelError: a weight is not finite.
    """
    if not 0 <= zeros < 1:
        raise UsageError(f"the share of zeros must lie between 0 and 1, not {zeros:g}", hint="1 would leave nothing")
    if block < 1:
        raise UsageError(f"blocks of {block} output channels make no sense", hint="take sparse.block = 1, 2 or 4")
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ModelError("weights are not finite", where=name, hint="look at the checkpoint")
    if zeros == 0:
        return {}
    if scope == "uniform":
        return {name: _masks({name: weight}, zeros, block, costs, reaching)[name] for name, weight in weights.items()}
    return _masks(weights, zeros, block, costs, reaching)


def apply_masks(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set to zero what a mask says; in place.

    Raises:
        ModelError: a mask is of no parameter, or of another shape.
    """
    named = dict(module.named_parameters())
    for name, mask in masks.items():
        if name not in named or named[name].shape != mask.shape:
            there = tuple(named[name].shape) if name in named else "no parameter"
            raise ModelError(f"a mask of shape {tuple(mask.shape)} for {there}", where=name)
        with torch.no_grad():
            named[name].masked_fill_(~mask.to(named[name].device), 0.0)


def zeros_by_layer(module: nn.Module, example: Tensor, which: Which = "1x1") -> dict[str, tuple[int, int]]:
    """(zeros, weights) of each parameter that `magnitude_masks` would prune."""
    weights = _weights(module, example, which)
    return {name: (int((weight == 0).sum()), weight.numel()) for name, weight in weights.items()}


def macs_of_weights(module: nn.Module, example: Tensor, which: Which = "1x1") -> dict[str, float]:
    """Multiply-accumulates that one weight of each parameter takes on an image: the positions it is used at. A weight
    that several layers share is listed once, with all its positions.

    Args:
        example: one image, (1, C, H, W).
    """
    return {weight.name: float(weight.positions) for weight in _used(module, example, which)}


def _masks(
    layers: Mapping[str, Tensor], zeros: float, block: int, costs: Mapping[str, float] | None, reaching: bool
) -> Masks:
    """Masks of these layers under one threshold."""
    each = {name: 1.0 if costs is None else costs.get(name, 0.0) for name in layers}
    scores = {name: _scores(weight, block) for name, weight in layers.items()}
    sizes = {name: _sizes(weight, block) * each[name] for name, weight in layers.items()}
    budget = zeros * sum(weight.numel() * each[name] for name, weight in layers.items())
    for score in scores.values():
        score.view(-1)[score.argmax()] = math.inf
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    order = torch.argsort(flat, stable=True)
    spent = torch.cumsum(torch.cat([size.reshape(-1) for size in sizes.values()])[order], 0)
    count = int((spent < budget * (1 - 1e-12)).sum()) + 1 if reaching else int((spent <= budget * (1 + 1e-12)).sum())
    if count and math.isinf(float(flat[order[count - 1]])):
        raise UsageError(
            f"{zeros:.2%} zeros would leave a layer without weights", hint="ask for less, or take smaller blocks"
        )
    gone = torch.zeros(len(flat), dtype=torch.bool)
    gone[order[:count]] = True
    parts = gone.split([score.numel() for score in scores.values()])
    return {
        name: ~_unfolded(part.reshape(scores[name].shape), layers[name], block)
        for name, part in zip(layers, parts, strict=True)
    }


def _scores(weight: Tensor, block: int) -> Tensor:
    """Mean square of each block, float64, (blocks, *the rest of the weight's shape)."""
    squares = weight.detach().double().cpu().square()
    total = torch.stack([part.sum(0) for part in squares.split(block)])
    return total / _lengths(weight, block)


def _sizes(weight: Tensor, block: int) -> Tensor:
    """How many weights each block has, in the shape of `_scores`."""
    return _lengths(weight, block).expand(-1, *weight.shape[1:]).contiguous()


def _lengths(weight: Tensor, block: int) -> Tensor:
    lengths = torch.tensor([len(part) for part in torch.arange(len(weight)).split(block)], dtype=torch.float64)
    return lengths.reshape(-1, *([1] * (weight.dim() - 1)))


def _unfolded(blocks: Tensor, weight: Tensor, block: int) -> Tensor:
    """A value of each block at each of its weights."""
    return blocks.repeat_interleave(block, 0)[: len(weight)]


def _weights(module: nn.Module, example: Tensor, which: Which) -> dict[str, Tensor]:
    """Name and value of the weights that are pruned; a shared one once."""
    named: dict[str, Tensor] = dict(module.named_parameters())
    return {weight.name: named[weight.name] for weight in _used(module, example, which)}


def _used(module: nn.Module, example: Tensor, which: Which) -> list[Weight]:
    named = {name for name, _ in module.named_parameters()}  # a buffer may be a weight, too: that is no parameter
    return [
        weight
        for name, weight in find_weights(module, example).items()
        if name in named and (weight.dense_1x1 if which == "1x1" else which == "all" or name in which)
    ]
