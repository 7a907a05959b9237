"""Gates: a squeeze-excitation can be removed as one, and a constant for each channel stands in its place.

    y = x * gate(x)   ->   y = x * c        c: what the gate answers on average, (channels,)

The constant is a parameter: it is taken from data when the gate goes (`set_gate_constants`), is trained with the rest,
and is folded into a neighbouring convolution by the merge, so that nothing of the gate is left in the exported file.
That squeeze-excitation bears more pruning than anything else is a finding of "Pruning Compact ConvNets for Efficient
Inference" (arXiv 2301.04502, section 4); the mean in its place is ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgeprune.models.modes import evaluating
from edgeprune.space.units import Branch, Structure

UNSET = 0.5  # before data were seen: the middle of a sigmoid


class ConstantGate(nn.Module):
    """Stands where a removed gate ended: answers a constant for each channel, whatever it is called with.

    Args:
        channels: length of `value`; the answer has shape (1, channels, 1, ...), as many dimensions as the input has.
    """

    def __init__(self, channels: int, like: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.full((channels,), UNSET, dtype=like.dtype, device=like.device))

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        return self.value.reshape(1, -1, *(1 for _ in x.shape[2:]))


class Unity(nn.Module):
    """Stands where a constant gate was folded into a neighbour: answers ones for its input's channels."""

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        return torch.ones_like(x)


def removed_gates(structure: Structure, removed: Collection[str]) -> list[Branch]:
    """Those of some branches that are gates."""
    return [branch for branch in structure.branches if branch.gate and branch.id in removed]


def set_gate_constants(
    pruned: nn.Module, narrow: nn.Module, structure: Structure, removed: Collection[str], batches: Iterable[Tensor]
) -> None:
    """Set the constants of removed gates to what the gates answer on average; in place.

    Args:
        pruned: without these gates.
        narrow: the same model with them still there (`apply_but_gates`).
        removed: ids of branches and gates that are gone.
        batches: images, (N, C, H, W).
    """
    modules = dict(narrow.named_modules())
    gates = [gate for gate in removed_gates(structure, removed) if gate.output in modules]  # not within a branch gone
    if not gates:
        return
    sums: dict[str, Tensor] = {}
    handles = []
    for gate in gates:

        def add(_: nn.Module, __: object, out: Tensor, name: str = gate.output) -> None:
            mean = out.double().flatten(2).mean(2) if out.ndim > 2 else out.double()
            sums[name] = sums.get(name, torch.zeros(mean.shape[1], dtype=mean.dtype)) + mean.sum(0).cpu()

        handles.append(modules[gate.output].register_forward_hook(add))
    count = 0
    try:
        with evaluating(narrow), torch.no_grad():
            for images in batches:
                narrow(images)
                count += len(images)
    finally:
        for handle in handles:
            handle.remove()
    for gate in gates:
        place = pruned.get_submodule(gate.output)
        assert isinstance(place, ConstantGate), f"{gate.output} is a {type(place).__name__}"
        place.value.data.copy_(sums[gate.output] / count)


@contextmanager
def gates_at_batch_mean(module: nn.Module, structure: Structure, removed: Collection[str]) -> Iterator[None]:
    """Within this context some gates answer their mean over each batch: what a model does without them, before any
    constant was taken (as batch norms are judged with each batch's own statistics)."""
    modules = dict(module.named_modules())
    there = [modules[gate.output] for gate in removed_gates(structure, removed) if gate.output in modules]
    handles = [
        part.register_forward_hook(lambda _, __, out: out.mean(0, keepdim=True).expand_as(out)) for part in there
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
