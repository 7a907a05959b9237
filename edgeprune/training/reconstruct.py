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
The pruned model is solved layer after layer within one run, its batch norms taking the statistics of these images; the
unpruned one runs as often as the samples of the next layers fill `AT_ONCE`, mostly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.graph.labels import Indices
from edgeprune.models.modes import batch_statistics, evaluating
from edgeprune.space.cut import Removed, gone_indices
from edgeprune.space.units import Structure

POSITIONS = 64  # of an image, sampled for each layer
WIDEST = 4096  # channels: a layer's system is dense, in float64
AT_ONCE = 2**30  # bytes of the largest value within the model, and of the samples that are held
_NONE: Indices = np.empty(0, dtype=np.int64)


def reconstruct(
    pruned: nn.Module, whole: nn.Module, structure: Structure, removed: Removed, images: Tensor, *, seed: int = 0
) -> tuple[str, ...]:
    """Set the weights of the layers that stay, and the statistics of batch norms, from some images; in place.

    Left as they are: convolutions in groups, layers that are called more than once or whose weight is shared or
    computed, those of more than `WIDEST` channels, and those that get images of another size.

    Args:
        pruned: the model without some units and branches.
        whole: the unpruned model it was cut from; it stays as it is.
        structure: what `find_structure` found in `whole`.
        removed: group id -> unit numbers that are gone in `pruned`.
        images: (N, C, H, W). All go through the model at once, for batch norms to see them together: as many as
            `images_at_once` says at most.

    Returns:
        the names of the layers that were set.
    """
    there, kept = _layers(whole, structure), dict(_layers(pruned, structure))
    unpruned = _Unpruned(whole, {name: layer for name, layer in there.items() if name in kept}, images, seed)
    gone = gone_indices(whole, structure, removed)
    done: list[str] = []

    def solve(name: str, image: Tensor) -> None:
        weight, layer = there[name].weight, kept[name]
        rows, columns = (
            torch.from_numpy(np.setdiff1d(np.arange(weight.shape[dim]), gone.get((f"{name}.weight", dim), _NONE)))
            for dim in (0, 1)
        )
        if (len(rows), len(columns)) != layer.weight.shape[:2] or _positions(layer, image) != unpruned.many[name]:
            return
        samples, positions = unpruned.inputs(name)
        centred = layer.bias is not None or name in unpruned.normed
        found, shift = linear_map(samples, _sampled(layer, image, positions), columns, centred=centred)
        filters = weight.detach().double()[rows]
        layer.weight.data.copy_(torch.einsum("oc...,ck->ok...", filters, found))
        if layer.bias is not None:
            layer.bias.data.add_((filters.flatten(2).sum(2) if filters.ndim > 2 else filters) @ shift)
        done.append(name)

    with (
        batch_statistics(pruned, momentum=1.0),
        _asked_first({name: kept[name] for name in unpruned.many}, solve),
        torch.no_grad(),
    ):
        pruned(images)
    return tuple(done)


def images_at_once(module: nn.Module, images: Tensor) -> int:
    """How many images like these, (n, C, H, W), may go through a model together: its largest value then takes `AT_ONCE`
    bytes, and a few like it are held at a time."""
    sizes = [images.numel() * images.element_size()]

    def weigh(_: nn.Module, __: object, answer: object) -> None:
        if isinstance(answer, Tensor):
            sizes.append(answer.numel() * answer.element_size())

    handles = [part.register_forward_hook(weigh) for part in module.modules()]
    try:
        with evaluating(module), torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
    return max(1, AT_ONCE * len(images) // max(sizes))


def adapt_norms(module: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of these images, (N, C, H, W), all at once, and change nothing else; in place."""
    with batch_statistics(module, momentum=1.0), torch.no_grad():
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


class _Unpruned:
    """What layers of the unpruned model get at some positions of each image.

    `many`: of the layers that are called once and are not too wide, in the order of their calls, how many positions an
    image has there. `normed`: names of those whose answer a batch norm takes.
    """

    def __init__(
        self, module: nn.Module, layers: Mapping[str, nn.Conv2d | nn.Linear], images: Tensor, seed: int
    ) -> None:
        self._module, self._layers, self._images = module, layers, images
        self._random = torch.Generator().manual_seed(seed)
        self._held: dict[str, tuple[Tensor, Tensor]] = {}
        self.many: dict[str, int] = {}
        self.normed: set[str] = set()
        self._look()

    def inputs(self, name: str) -> tuple[Tensor, Tensor]:
        """Samples, (images x positions, channels), and their positions, (images, positions); told once."""
        if name not in self._held:
            self._sample_from(name)
        return self._held.pop(name)

    def _look(self) -> None:
        """Run two images (norms without statistics want more than one) to see which layers are called, and how."""
        twice: set[str] = set()
        answers: dict[int, tuple[str, Tensor]] = {}  # the tensor, too: an id is another's once it is freed

        def note(name: str, image: Tensor) -> None:
            if name in self.many:
                twice.add(name)
            self.many[name] = _positions(self._layers[name], image)

        def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
            def hook(_: nn.Module, __: object, answer: Tensor) -> None:
                answers.clear()
                answers[id(answer)] = name, answer

            return hook

        def norm(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if arguments and id(arguments[0]) in answers:
                self.normed.add(answers[id(arguments[0])][0])

        handles = [layer.register_forward_hook(keep(name)) for name, layer in self._layers.items()]
        norms = (part for part in self._module.modules() if isinstance(part, _BatchNorm))
        handles += [part.register_forward_pre_hook(norm) for part in norms]
        try:
            self._run(self._images[:2], self._layers, note)
        finally:
            for handle in handles:
                handle.remove()
        self.many = {
            name: many for name, many in self.many.items() if name not in twice and self._channels(name) <= WIDEST
        }

    def _sample_from(self, first: str) -> None:
        """Sample this layer and as many of those after it as may be held."""
        names = list(self.many)
        left, sampled = AT_ONCE, dict[str, nn.Conv2d | nn.Linear]()
        for name in names[names.index(first) :]:
            count = len(self._images) * min(POSITIONS, self.many[name])
            left -= count * self._channels(name) * self._images.element_size()
            if sampled and left < 0:
                break
            sampled[name] = self._layers[name]

        def take(name: str, image: Tensor) -> None:
            shape = len(image), min(POSITIONS, self.many[name])
            positions = torch.randint(self.many[name], shape, generator=self._random)
            self._held[name] = _sampled(self._layers[name], image, positions), positions

        self._run(self._images, sampled, take)

    def _run(
        self, images: Tensor, layers: Mapping[str, nn.Conv2d | nn.Linear], ask: Callable[[str, Tensor], None]
    ) -> None:
        with evaluating(self._module), _asked_first(layers, ask), torch.no_grad():
            self._module(images)

    def _channels(self, name: str) -> int:
        return self._layers[name].weight.shape[1]


@contextmanager
def _asked_first(layers: Mapping[str, nn.Conv2d | nn.Linear], ask: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within this context `ask` gets a layer's name and input before the layer computes."""
    handles = []
    for name, layer in layers.items():

        def hook(_: nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
            ask(name, arguments[0])

        handles.append(layer.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _positions(layer: nn.Conv2d | nn.Linear, image: Tensor) -> int:
    """How many positions an image has in a layer's input."""
    channels = image.shape[1] if isinstance(layer, nn.Conv2d) else image.shape[-1]
    return image[0].numel() // channels


def _sampled(layer: nn.Conv2d | nn.Linear, image: Tensor, positions: Tensor) -> Tensor:
    """A layer's input at these positions of each image, (samples, channels)."""
    rows = (
        image.flatten(2).transpose(1, 2)
        if isinstance(layer, nn.Conv2d)
        else image.reshape(len(image), -1, image.shape[-1])
    )
    index = positions.to(rows.device)[:, :, None].expand(-1, -1, rows.shape[2])
    return rows.gather(1, index).flatten(0, 1).cpu()
