"""Regrowth: units that went come back for a while, fewer and fewer, so that an early choice can be revised.

CHEX (Hou et al., CVPR 2022, arXiv 2203.15794), section 3.2, which REPrune trains with: after the criterion has chosen
what stays, a share delta_t of each layer's channels returns with the weights and batch norm statistics they last had,
drawn in proportion to softmax(||w - Proj(w)||), where Proj is the projection on the span of the kept filters: what
those cannot express comes back first. delta_t falls along a cosine to zero, so the last choice keeps the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from edgeprune.space.cut import Removed, tensor_named
from edgeprune.space.units import Structure, UnitGroup

Array = npt.NDArray[np.float64]


def regrowth_share(first: float, progress: float) -> float:
    """delta_t = delta_0 (1 + cos(pi t / T)) / 2, with `progress` = t / T from 0 to 1."""
    return first * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def regrow(
    module: nn.Module, structure: Structure, removed: Removed, share: float, rng: np.random.Generator
) -> dict[str, tuple[int, ...]]:
    """What is still gone after `share` of each group's units came back (rounded; never more than went).

    Args:
        module: with the weights that the units last had.
        removed: what the criterion took, by group.
    """
    left: dict[str, tuple[int, ...]] = {}
    for group in structure.groups:
        gone = tuple(removed.get(group.id, ()))
        count = min(len(gone), round(share * group.size))
        chances = softmax(residuals(filters(module, group), gone)) if count else np.empty(0)
        back = set(rng.choice(list(gone), size=count, replace=False, p=chances).tolist()) if count else set()
        if still := tuple(unit for unit in gone if unit not in back):
            left[group.id] = still
    return left


def filters(module: nn.Module, group: UnitGroup) -> Array:
    """All weights that compute each unit, one row a unit: shape (units, weights)."""
    rows = []
    for member in group.produced:
        weight = tensor_named(module, member.name).detach().double().cpu().numpy()
        if weight.ndim >= 2:
            rows.append(np.moveaxis(weight, member.dim, 0)[member.indices].reshape(group.size, -1))
    return np.concatenate(rows, axis=1)


def residuals(rows: Array, gone: Sequence[int]) -> Array:
    """||w - Proj(w)|| of each row that is gone, projected on the span of those that stay: shape (gone,)."""
    stay = np.delete(rows, list(gone), axis=0)
    wanted = rows[list(gone)]
    answer, *_ = np.linalg.lstsq(stay.T, wanted.T, rcond=None)
    return np.asarray(np.linalg.norm(wanted.T - stay.T @ answer, axis=0))


def softmax(values: Array) -> Array:
    grown = np.exp(np.maximum(values - values.max(), -500.0))  # what is drawn needs a chance, however small
    return np.asarray(grown / grown.sum())
