"""Magnitude: the L2 norm of a unit's filters (Li et al., Pruning Filters for Efficient ConvNets, 2017, with L2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import ModelError
from edgeprune.methods.method import OF_RANKINGS, OF_SCORES, Method, ToRank
from edgeprune.space.ranking import ByScore

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.space.units import Structure, UnitGroup


class Magnitude(Method):
    """The units with the smallest filters go first."""

    name = "magnitude"
    allocators = (*OF_RANKINGS, *OF_SCORES)

    def rank(self, asked: ToRank) -> ByScore:
        """By the weights alone, of units that are there."""
        return ByScore(score_magnitude(asked.model.module, asked.structure))


def score_magnitude(module: nn.Module, structure: Structure) -> dict[str, NDArray[np.float64]]:
    """L2 norm of the produced rows of every convolution and linear layer of a unit, mean over its coupled layers.

    Args:
        structure: what `find_structure` found in `module`.

    Returns:
        group id -> shape (units,), larger is more important.

    Raises:
        ModelError: a weight is not finite.
    """
    return {group.id: np.mean(_row_norms(module, group), axis=0) for group in structure.groups}


def _row_norms(module: nn.Module, group: UnitGroup) -> list[NDArray[np.float64]]:
    """One array of shape (units,) per producing layer."""
    from edgeprune.space.cut import tensor_named

    norms = []
    matrices = [member for member in group.produced if tensor_named(module, member.name).ndim > 1]
    rows = [member for member in matrices if member.dim == 0]
    for member in rows or matrices:  # a transposed convolution, an embedding and `x @ W` have filters in columns
        weight = tensor_named(module, member.name).detach().double().cpu().numpy()
        squares = np.square(weight).sum(axis=tuple(dim for dim in range(weight.ndim) if dim != member.dim))
        norm = np.sqrt(squares[member.indices].sum(axis=1))
        if not np.isfinite(norm).all():
            raise ModelError("weights are not finite", where=member.name, hint="look at the checkpoint")
        norms.append(norm)
    return norms
