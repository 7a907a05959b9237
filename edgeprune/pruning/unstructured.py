"""Unstructured magnitude pruning: which single weights are zero, one threshold for all layers or one share for each.

After "Pruning Compact ConvNets for Efficient Inference" (arXiv 2301.04502): *global* sorts all weights together,
*uniform* sets the same share of every layer to zero. What is chosen is a mask; zeros stay through re-training where the
mask is given to `edgeprune.training.loop.tune`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError, UsageError

Scope = Literal["global", "uniform"]
Which = Literal["1x1", "all"] | Collection[str]
Masks = dict[str, Tensor]


def magnitude_masks(
    module: nn.Module,
    *,
    zeros: float,
    scope: Scope = "global",
    block: int = 1,
    which: Which = "1x1",
    costs: Mapping[str, float] | None = None,
    reaching: bool = False,
) -> Masks:
    """The weights that stay: parameter name -> bool tensor of the parameter's shape, false where it becomes zero.

    Weights go in blocks of `block` neighbouring output channels that read the same input (one kernel position), least
    mean square first: sparse kernels that take two channels at a time need zeros that come in pairs. A last block may
    be smaller. Each layer keeps its largest block, so that none falls silent.

    Args:
        zeros: share that becomes zero, from 0 (no masks) to below 1: of the weights, or of what they cost.
        which: 1x1 convolutions of stride 1 without groups (those that have sparse kernels), every convolution and
            linear layer, or those of these whose weights are named.
        costs: what one weight of a parameter costs (see `macs_of_weights`), by name; 1 each without.
        reaching: whether the share is the least that has to go, not the most.

    Returns:
        masks that zero the least blocks first: as many as come nearest to the share without passing it, or where it is
        to be reached the fewest that do (of each layer, with a uniform share).

    Raises:
        UsageError: a share outside of 0 to 1, one so high that a layer would fall silent, or no layer to prune.
        ModelError: a weight is not finite.
    """
    if not 0 <= zeros < 1:
        raise UsageError(f"the share of zeros must lie between 0 and 1, not {zeros:g}", hint="1 would leave nothing")
    if block < 1:
        raise UsageError(f"blocks of {block} output channels make no sense", hint="take sparse.block = 1, 2 or 4")
    layers = dict(_weights(module, which))
    if not layers:
        raise UsageError(
            f"there is no {'1x1 convolution' if which == '1x1' else 'such layer with weights'} to prune",
            where=type(module).__name__,
            hint="leave sparse.zeros at 0 for this model",
        )
    for name, weight in layers.items():
        if not torch.isfinite(weight).all():
            raise ModelError("weights are not finite", where=name, hint="look at the checkpoint")
    if zeros == 0:
        return {}
    if scope == "uniform":
        return {name: _masks({name: weight}, zeros, block, costs, reaching)[name] for name, weight in layers.items()}
    return _masks(layers, zeros, block, costs, reaching)


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


def zeros_of(module: nn.Module, which: Which = "1x1") -> tuple[int, int]:
    """(zeros, weights) of the layers that `magnitude_masks` would prune."""
    weights = [weight for _, weight in _weights(module, which)]
    return sum(int((weight == 0).sum()) for weight in weights), sum(weight.numel() for weight in weights)


def macs_of_weights(module: nn.Module, example: Tensor, which: Which = "1x1") -> dict[str, float]:
    """Multiply-accumulates that one weight of each parameter takes on an image: the positions it is used at. A weight
    that several layers share is listed once, with all its positions.

    Args:
        example: one image, (1, C, H, W).
    """
    positions: dict[str, float] = {}
    handles = []
    first: dict[int, str] = {}
    for path, layer in module.named_modules():
        if _is_pruned(path, layer, which):

            def count(
                layer: nn.Module,
                _: object,
                result: Tensor,
                name: str = first.setdefault(id(layer.weight), _weight_of(path)),
            ) -> None:
                used = (
                    result.shape[2:].numel() if isinstance(layer, nn.Conv2d) else result[0].numel() // result.shape[-1]
                )
                positions[name] = positions.get(name, 0.0) + used

            handles.append(layer.register_forward_hook(count))
    try:
        with torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return positions


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


def _weights(module: nn.Module, which: Which) -> Iterator[tuple[str, Tensor]]:
    """Name and value of the weights that are pruned; a shared one once."""
    seen: set[int] = set()
    for path, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        if _is_pruned(path, layer, which) and isinstance(weight, Tensor) and id(weight) not in seen:
            seen.add(id(weight))
            yield _weight_of(path), weight


def _weight_of(path: str) -> str:
    return f"{path}.weight".lstrip(".")


def _is_pruned(path: str, layer: nn.Module, which: Which) -> bool:
    if which != "1x1":
        return isinstance(layer, nn.Conv2d | nn.Linear) and (which == "all" or _weight_of(path) in which)
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.groups == 1
