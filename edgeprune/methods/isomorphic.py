"""Isomorphic pruning: scores are compared within sub-structures that are alike, never across them.

Fang et al., Isomorphic Pruning for Vision Models (ECCV 2024, arXiv 2407.04616), section 3: removing a unit takes a
small graph of parameters with it. Units whose graphs are isomorphic (all heads of a transformer, all hidden units of
its MLPs, all channels of its embedding) have scores of one distribution and are ranked together; of each such class the
same share goes. The scores are first-order Taylor's, as in the paper.

Here the graph of a group's units is what its members say: which kinds of layers write and read it, along which
dimension. Like the rule of the paper this one knows no latency: the share is the least that meets the target.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.methods.taylor import Taylor
from edgeprune.space.ranking import Scores

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.space.units import Member, Structure, UnitGroup


class Isomorphic(Taylor):
    """Taylor's scores, compared within alike sub-structures; `[prune.isomorphic]` takes what `[prune.taylor]` takes."""

    name = "isomorphic"
    allocators = ("isomorphic",)


class AlikeThresholds:
    """A rule (`search/rules.py`): in each class of alike groups one threshold over the scores of all their units.

    Args:
        module: the model that `structure` was found in.
        scores: of every group's units, shape (units,).
    """

    def __init__(self, module: nn.Module, structure: Structure, scores: Scores) -> None:
        self._scores = scores
        self.classes = alike(module, structure)
        self._sorted = [np.sort(np.concatenate([scores[name] for name in names])) for names in self.classes]

    def kept(self, share: float) -> dict[str, int]:
        """How many units each group keeps where this share of each class goes."""
        kept: dict[str, int] = {}
        for names, values in zip(self.classes, self._sorted, strict=True):
            gone = math.ceil(share * len(values) - 1e-9)
            threshold = values[gone - 1] if gone else -math.inf
            kept |= {name: int((self._scores[name] > threshold).sum()) for name in names}
        return kept


def alike(module: nn.Module, structure: Structure) -> tuple[tuple[str, ...], ...]:
    """The groups whose units are removed with isomorphic graphs, class by class, in the order of the structure."""
    classes: dict[object, list[str]] = defaultdict(list)
    for group in structure.groups:
        classes[_graph(module, group)].append(group.id)
    return tuple(map(tuple, classes.values()))


def _graph(module: nn.Module, group: UnitGroup) -> object:
    """What removing a unit takes with it: the parameters that write and that read it, by kind of layer, dimension and
    how many of their slices a unit owns."""

    def nodes(members: tuple[Member, ...]) -> tuple[tuple[str, str, int, int], ...]:
        return tuple(sorted(_node(module, member) for member in members))

    return nodes(group.produced), nodes(group.consumed), group.mixed


def _node(module: nn.Module, member: Member) -> tuple[str, str, int, int]:
    path, _, name = member.name.rpartition(".")
    return type(module.get_submodule(path)).__name__, name, member.dim, member.indices.shape[1]
