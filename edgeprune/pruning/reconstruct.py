"""Least-squares reconstruction: what stays of a pruned model answers, layer by layer, as near to the unpruned one as a
linear map of its inputs can.

    M = argmin_M  mean |x - M z|^2 + lambda |M - S|^2,      W' = W M

x: the inputs of a convolution or linear layer in the unpruned model, (channels,), at sampled images and positions;
z: those it gets in the pruned model, (kept channels,), whose earlier layers are reconstructed by then; S picks the kept
channels, so W S is the pruned layer as cutting left it. One map serves all positions of a kernel. This goes beyond
channels that are gone: a layer behind a residual branch that went learns what that branch would have added.

After He et al., "Channel pruning for accelerating very deep neural networks" (ICCV 2017, arXiv 1707.06168, section
3.1), who solve for W' itself against a layer's answers, as AMC does before it judges (arXiv 1802.03494). A map of the
inputs needs no patches, is one small system a layer, and is pulled to what was there (lambda) where samples are few.
Both passes are single: the samples of all layers are taken in one run of the unpruned model, and the pruned one is
solved layer after layer within one run, its batch norms taking the statistics of these images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.structure.cut import Removed, gone_indices
from edgeprune.structure.graph import evaluating
from edgeprune.structure.units import Indices, Structure

POSITIONS = 64  # of an image, sampled for each layer
_NONE: Indices = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class _Inputs:
    """What a layer of the unpruned model got: (samples, channels), at these positions of each image."""

    samples: Tensor
    positions: Tensor  # (images, POSITIONS), into the positions of an image in a row
    many: int  # positions of an image


def reconstruct(
    pruned: nn.Module, whole: nn.Module, structure: Structure, removed: Removed, images: Tensor, *, seed: int = 0
) -> tuple[str, ...]:
    """Set the weights of the layers that stay, and the statistics of batch norms, from some images; in place.

    Left as they are: convolutions in groups, layers that are called more than once or whose weight is shared or
    computed, and those that get images of another size.

    Args:
        pruned: the model without some units and branches.
        whole: the unpruned model it was cut from; it stays as it is.
        structure: what `find_structure` found in `whole`.
        removed: group id -> unit numbers that are gone in `pruned`.
        images: (N, C, H, W). All go through the model at once, for batch norms to see them together.

    Returns:
        the names of the layers that were set.
    """
    there, kept = _layers(whole, structure), dict(_layers(pruned, structure))
    layers = {name: layer for name, layer in there.items() if name in kept}
    gone = gone_indices(whole, structure, removed)
    inputs, normed = _inputs(whole, layers, images, torch.Generator().manual_seed(seed))
    done: list[str] = []

    def solve(name: str, image: Tensor) -> None:
        weight, layer = layers[name].weight, kept[name]
        rows, columns = (
            torch.from_numpy(np.setdiff1d(np.arange(weight.shape[dim]), gone.get((f"{name}.weight", dim), _NONE)))
            for dim in (0, 1)
        )
        was = inputs[name]
        if (len(rows), len(columns)) != layer.weight.shape[:2] or _positions(layer, image)[1] != was.many:
            return
        centred = layer.bias is not None or name in normed
        found, shift = linear_map(was.samples, _sampled(layer, image, was.positions), columns, centred=centred)
        filters = weight.detach().double()[rows]
        layer.weight.data.copy_(torch.einsum("oc...,ck->ok...", filters, found))
        if layer.bias is not None:
            layer.bias.data.add_((filters.flatten(2).sum(2) if filters.ndim > 2 else filters) @ shift)
        done.append(name)

    with _adapting(pruned), _asked_first(kept, solve, only=inputs), torch.no_grad():
        pruned(images)
    return tuple(done)


def adapt_norms(module: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of these images, (N, C, H, W), all at once, and change nothing else; in place."""
    with _adapting(module), torch.no_grad():
        module(images)


def linear_map(x: Tensor, z: Tensor, columns: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
    """The map from z to x with the least mean square, pulled to the one that picks `columns`, in float64.

    Args:
        x: (samples, channels).
        z: (samples, kept channels).
        columns: (kept channels,): which channel of x each of z was.
        centred: whether a constant is free, for a bias or a batch norm behind takes it.

    Returns:
        M, (channels, kept channels), and the constant, (channels,), zero unless centred: x ~ M z + constant. lambda is
        the mean power of a channel of z times kept channels / samples: the share of the map that noise would make.
    """
    x, z = x.double(), z.double()
    means = [part.mean(0) if centred else torch.zeros_like(part[0]) for part in (x, z)]
    x, z = x - means[0], z - means[1]
    samples, kept = z.shape
    own, picks = z.T @ z / samples, torch.zeros(x.shape[1], kept, dtype=torch.float64)
    picks[columns, torch.arange(kept)] = 1.0
    pull = float(own.diagonal().mean()) * kept / samples
    if not pull > 0:  # nothing but zeros comes in, or what is no number
        return picks, torch.zeros(x.shape[1], dtype=torch.float64)
    system = own + pull * torch.eye(kept, dtype=torch.float64)
    found = torch.linalg.solve(system, (x.T @ z / samples + pull * picks).T).T
    return found, means[0] - found @ means[1]


def _layers(module: nn.Module, structure: Structure) -> dict[str, nn.Conv2d | nn.Linear]:
    """The layers that can be set, by name."""
    uses: dict[int, int] = {}
    for _, parameter in module.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    return {
        name: layer
        for name, layer in module.named_modules()
        if (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1))
        and uses.get(id(layer.weight)) == 1  # none: it is computed
        and name not in structure.standardized
    }


def _inputs(
    whole: nn.Module, layers: Mapping[str, nn.Conv2d | nn.Linear], images: Tensor, random: torch.Generator
) -> tuple[dict[str, _Inputs], frozenset[str]]:
    """What each layer gets in the unpruned model, and the names of those whose answer a batch norm takes."""
    found: dict[str, _Inputs] = {}
    twice: set[str] = set()
    normed: set[str] = set()
    answers: dict[int, tuple[str, Tensor]] = {}  # the tensor, too: an id is another's once it is freed

    def take(name: str, image: Tensor) -> None:
        if name in found:
            twice.add(name)
            return
        count, many = _positions(layers[name], image)
        positions = torch.randint(many, (count, min(POSITIONS, many)), generator=random)
        found[name] = _Inputs(_sampled(layers[name], image, positions), positions, many)

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_: nn.Module, __: object, answer: Tensor) -> None:
            answers.clear()
            answers[id(answer)] = name, answer

        return hook

    def norm(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if arguments and id(arguments[0]) in answers:
            normed.add(answers[id(arguments[0])][0])

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    handles += [part.register_forward_pre_hook(norm) for part in whole.modules() if isinstance(part, _BatchNorm)]
    try:
        with evaluating(whole), _asked_first(layers, take), torch.no_grad():
            whole(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: inputs for name, inputs in found.items() if name not in twice}, frozenset(normed)


@contextmanager
def _asked_first(
    layers: Mapping[str, nn.Conv2d | nn.Linear],
    ask: Callable[[str, Tensor], None],
    *,
    only: Mapping[str, object] | None = None,
) -> Iterator[None]:
    """Within this context `ask` gets a layer's name and input before the layer computes."""
    handles = []
    for name, layer in layers.items():
        if only is None or name in only:

            def hook(_: nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
                ask(name, arguments[0])

            handles.append(layer.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _adapting(module: nn.Module) -> Iterator[None]:
    """Within this context batch norms use the batch's statistics, and keep them; all else is in eval mode."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with evaluating(module):
        try:
            for norm in norms:
                norm.train()
                norm.momentum = 1.0
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def _positions(layer: nn.Conv2d | nn.Linear, image: Tensor) -> tuple[int, int]:
    """(images, positions of an image) of a layer's input."""
    channels = image.shape[1] if isinstance(layer, nn.Conv2d) else image.shape[-1]
    return len(image), image[0].numel() // channels


def _sampled(layer: nn.Conv2d | nn.Linear, image: Tensor, positions: Tensor) -> Tensor:
    """A layer's input at these positions of each image, (samples, channels)."""
    rows = (
        image.flatten(2).transpose(1, 2)
        if isinstance(layer, nn.Conv2d)
        else image.reshape(len(image), -1, image.shape[-1])
    )
    index = positions.to(rows.device)[:, :, None].expand(-1, -1, rows.shape[2])
    return rows.gather(1, index).flatten(0, 1).cpu()
