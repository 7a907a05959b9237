"""Masks: a model of the full width that computes what the pruned one will."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgeprune.structure.cut import Removed, chosen_units, gone_indices, tensor_named
from edgeprune.structure.units import Structure


def mask_units(module: nn.Module, structure: Structure, removed: Removed) -> nn.Module:
    """A copy of a module in which the slices of some units are zero; see `remove_units` for arguments and errors.

    For every input x, in eval mode: mask_units(m, s, r)(x) == remove_units(m, s, r)(x), up to the order in which
    floating-point sums are taken. What makes them equal are the consumed slices: a removed channel is multiplied
    by zero wherever another channel reads it. The produced slices (filters, biases, scale and bias of norms) are
    zero as well, so a removed channel is 0 up to the first function with f(0) != 0 (sigmoid, hardsigmoid), and
    its gradients are those of a channel that is not there. Buffers (running statistics) stay.
    """
    gone_indices(module, structure, removed)  # checks that the structure fits
    masked = copy.deepcopy(module)
    parameters = {name for name, _ in masked.named_parameters(remove_duplicate=False)}
    with torch.no_grad():
        for group, units in chosen_units(structure, removed):
            for member in (*group.produced, *group.consumed):
                if member.name in parameters:
                    tensor = tensor_named(masked, member.name)
                    index = torch.from_numpy(member.indices[units].reshape(-1)).to(tensor.device)
                    tensor.index_fill_(member.dim, index, 0)
    return masked
