"""Scores in the unit of the loss: Taylor ranks the units, a few masked forward passes say what they are worth.

A Taylor score orders the units of one group well, but it is a first-order figure: how much the loss rises when a
quarter, a half or three quarters of a group go, or a whole residual branch, it does not know, and groups of
different depth are not comparable by it. So each group is masked at these shares, the rise of the loss on the
scoring images is measured, and the scores are stretched to meet it, in order. Branches are measured the same way.
(NetAdapt and AMC also judge a cut by its measured effect; see docs/methods.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.pruning.allocate import Scores
from edgeprune.structure.branches import branches_masked
from edgeprune.structure.graph import evaluating
from edgeprune.structure.masks import mask_units
from edgeprune.structure.units import Structure

SHARES = (0.25, 0.5, 0.75)
LEAST = 1e-6  # nats; a group whose loss does not rise still orders its units


@dataclass(frozen=True)
class Sensitivity:
    """What units and branches are worth, in nats of cross entropy."""

    scores: Scores
    branch_scores: dict[str, float]


def measure_sensitivity(
    module: nn.Module,
    structure: Structure,
    scores: Scores,
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Measure the rise of the loss for shares of each group and for each branch.

    Args:
        scores: a ranking of the units of each group, any unit, shape (units,), none negative.
        batches: images (N, C, H, W) and labels (N,) that the loss is taken on.
    """
    steps = len(SHARES) * len(structure.groups) + len(structure.branches)
    done = 0

    def rise(masked: nn.Module) -> float:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, steps)
        return max(_loss(masked, batches) - base, LEAST)

    base = _loss(module, batches)
    stretched = {}
    for group in structure.groups:
        order = np.argsort(scores[group.id], kind="stable")
        counts = sorted({n for share in SHARES if 0 < (n := round(share * group.size)) < group.size})
        counts = [n for n in counts if n % group.multiple == 0]
        rises = [rise(mask_units(module, structure, {group.id: order[:count].tolist()})) for count in counts]
        stretched[group.id] = stretch(scores[group.id], order, counts, rises)
    branch_scores = {}
    for branch in structure.branches:
        with branches_masked(module, structure, [branch.id]):
            branch_scores[branch.id] = rise(module)
    return Sensitivity(stretched, branch_scores)


def stretch(
    scores: npt.NDArray[np.float64], order: npt.NDArray[np.int64], counts: Sequence[int], rises: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Scale scores so that the lowest `counts[i]` of them sum to `rises[i]`, their order kept.

    Between two counts all scores get one factor; the last factor serves to the end. Where a later stretch would
    order its units before an earlier one, its units are raised to the earlier one's highest.

    Returns:
        Scores in the unit of `rises`, shape (units,).
    """
    ranked = scores[order] + 1e-12 * max(float(scores.max()), 1e-30)
    factor, start, reached = 1.0, 0, 0.0
    for count, rise in zip(counts, rises, strict=True):
        factor = max(rise - reached, LEAST) / float(ranked[start:count].sum())
        ranked[start:count] *= factor
        start, reached = count, max(rise, reached)
    ranked[start:] *= factor
    result = np.empty_like(ranked)
    result[order] = np.maximum.accumulate(ranked)
    return result


def _loss(module: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    with evaluating(module), torch.no_grad():
        losses = [F.cross_entropy(module(images).float(), labels, reduction="sum") for images, labels in batches]
    return float(torch.stack(losses).sum()) / sum(len(labels) for _, labels in batches)
