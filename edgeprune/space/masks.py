"""Masks: a model of the full width that computes what the pruned one will."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgeprune.graph.labels import Indices
from edgeprune.graph.sharing import copy_module
from edgeprune.models.replacing import replace_modules
from edgeprune.space.cut import (
    Removed,
    chosen_units,
    gone_indices,
    gone_statistics,
    narrowed_norm,
    remove_units,
    tensor_named,
)
from edgeprune.space.units import Structure

_NONE: Indices = np.empty(0, dtype=np.int64)


def mask_units(module: nn.Module, structure: Structure, removed: Removed) -> nn.Module:
    """A copy of a module in which the slices of some units are zero; see `remove_units` for arguments and errors.

    For every input x, in eval mode: mask_units(m, s, r)(x) == remove_units(m, s, r)(x), up to the order in which
    floating-point sums are taken. What makes them equal are the consumed slices: a removed channel is multiplied
    by zero wherever another channel reads it. The produced slices (filters, biases, scale and bias of norms) are
    zero as well, so a removed channel is 0 up to the first function with f(0) != 0 (sigmoid, hardsigmoid), and
    its gradients are those of a channel that is not there. Buffers (running statistics) stay.
    Norms over channels (layer norm, group norm) take their statistics over the channels that stay, as the pruned
    model's do: zeros would count in them. So do convolutions that standardize their weight, over a filter's inputs.
    """
    indices = gone_indices(module, structure, removed)  # also checks that the structure fits
    masked = zero_units(module, structure, removed)
    new: dict[str, nn.Module] = {
        path: KeptNorm(module.get_submodule(path), gone, dim)
        for (path, dim), gone in gone_statistics(structure, removed).items()
    }
    if any((f"{path}.weight", dim) in indices for path in structure.standardized for dim in (0, 1)):
        pruned = remove_units(module, structure, removed)
        for path in structure.standardized:
            outs, inner = (indices.get((f"{path}.weight", dim), _NONE) for dim in (0, 1))
            new[path] = KeptConv(pruned.get_submodule(path), module.get_submodule(path), outs, inner)
    replace_modules(masked, {masked.get_submodule(path): module for path, module in new.items()})
    return masked


def zero_units(module: nn.Module, structure: Structure, removed: Removed) -> nn.Module:
    """A copy of a module in which the parameters of some units are zero, whatever norms make of that."""
    zeroed = copy_module(module, {})
    parameters = {name for name, _ in zeroed.named_parameters(remove_duplicate=False)}
    with torch.no_grad():
        for group, units in chosen_units(structure, removed):
            for member in (*group.produced, *group.consumed):
                if member.name in parameters:
                    tensor = tensor_named(zeroed, member.name)
                    index = torch.from_numpy(member.indices[units].reshape(-1)).to(tensor.device)
                    tensor.index_fill_(member.dim, index, 0)
    return zeroed


class KeptConv(nn.Module):
    """A convolution that computes its weight, of some channels only; what it answers for the others is zero."""

    def __init__(self, narrow: nn.Module, whole: nn.Module, outs: Indices, inner: Indices) -> None:
        super().__init__()
        assert isinstance(whole, nn.Conv1d | nn.Conv2d | nn.Conv3d)  # others are frozen
        weight = whole.weight
        self.narrow, self.channels, groups = narrow, weight.shape[0], whole.groups
        self.outs = np.setdiff1d(np.arange(self.channels), outs)
        per_group = np.setdiff1d(np.arange(weight.shape[1]), inner)
        if weight.shape[1] == 1 and groups > 1:  # depthwise: in channel i makes outs i*m..i*m+m-1
            self.inner = np.unique(self.outs // (self.channels // groups))
        else:
            self.inner = (np.arange(groups)[:, None] * weight.shape[1] + per_group).reshape(-1)

    def forward(self, x: Tensor) -> Tensor:
        inner, outs = (torch.from_numpy(indices).to(x.device) for indices in (self.inner, self.outs))
        answer: Tensor = self.narrow(x.index_select(1, inner))
        whole = answer.new_zeros(answer.shape[0], self.channels, *answer.shape[2:])
        return whole.index_copy(1, outs, answer)


class KeptNorm(nn.Module):
    """A norm whose statistics run over some channels only; what it answers for the others is zero."""

    def __init__(self, norm: nn.Module, gone: Indices, dim: int) -> None:
        super().__init__()
        self.narrow, self.gone, self.dim = narrowed_norm(norm, gone), gone, dim

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.from_numpy(np.setdiff1d(np.arange(x.shape[self.dim]), self.gone)).to(x.device)
        answer: Tensor = self.narrow(x.index_select(self.dim, kept))
        return torch.zeros_like(x).index_copy(self.dim, kept, answer)
