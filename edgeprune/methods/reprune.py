"""REPrune: of each layer the filters stay whose kernels represent the others best.

Park et al., REPrune: Channel Pruning via Kernel Representative Selection (AAAI 2024, arXiv 2402.17862), as notes
on it give the rule (we have not read the paper's text).
For each input channel j the kernels K_j = {kappa_ij} of all filters i are clustered by Ward's linkage. All channels of
a layer are cut at one height, the greatest of those at which each has as many clusters as filters stay. Then filters
are picked greedily so that they cover the most clusters (maximum coverage: at least 1 - 1/e of what is possible).

What goes is chosen for each width anew: a filter that goes at one width may stay at a smaller one.

Beyond the paper, whose layers have one convolution each: where coupled layers make a unit (the channels of a residual
stream), the coverage is summed over all of them, each cut at its own height; a unit of several channels (a head) brings
the kernels of all; a depthwise layer's kernels, one a filter, are one set; a linear layer's kernels are single weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import numpy.typing as npt

from edgeprune.errors import ModelError
from edgeprune.methods.method import Method, ToRank

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.space.units import Member, Structure, UnitGroup

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]  # (sets, units): the cluster of each unit's kernel in each set


class Reprune(Method):
    """Kernel representatives. It gives no scores, so no allocator compares its units across layers."""

    name = "reprune"
    of_weights_alone = True

    def rank(self, asked: ToRank) -> Cover:
        """By kernels alone; ties by the recipe's seed."""
        return Cover(asked.model.module, asked.structure, seed=asked.seed)


class Cover:
    """REPrune's choice for every group of a model (a `Ranking`), from its weights alone.

    Args:
        module: the model; its weights are read when a group is first asked for.
        structure: what `find_structure` found in it.
        seed: ties are broken at random, alike for the same seed.
    """

    def __init__(self, module: nn.Module, structure: Structure, *, seed: int = 0) -> None:
        self._module, self._seed = module, seed
        self._groups = {group.id: group for group in structure.groups}
        self._layers: dict[str, list[_Layer]] = {}
        self._chosen: dict[tuple[str, int], tuple[int, ...]] = {}

    def gone(self, group: str, keep: int) -> tuple[int, ...]:
        """The units that go; see `Ranking`.

        Raises:
            ModelError: a weight is not finite, or none computes the group's units.
        """
        size = self._groups[group].size
        if keep >= size:
            return ()
        if (group, keep) not in self._chosen:
            if group not in self._layers:
                self._layers[group] = [_Layer(sets) for sets in kernel_sets(self._module, self._groups[group])]
                if not self._layers[group]:
                    raise ModelError(
                        "no weight computes its units: REPrune has no kernels to look at",
                        where=group,
                        hint="take another prune.method, or keep this layer (prune.keep)",
                    )
            labels = [
                clusters(layer.linkages, cut_height(layer.linkages, size - keep)) for layer in self._layers[group]
            ]
            rng = np.random.default_rng([self._seed, crc32(group.encode()), keep])
            stays = cover(np.concatenate(labels), keep, rng)
            self._chosen[group, keep] = tuple(sorted(set(range(size)) - set(stays)))
        return self._chosen[group, keep]


class _Layer:
    """The linkages of a layer's kernel sets."""

    def __init__(self, sets: Array) -> None:
        self.linkages = [linkage(kernels) for kernels in sets]


def kernel_sets(module: nn.Module, group: UnitGroup) -> Iterator[Array]:
    """The kernels of each layer that makes a group's units, shape (sets, units, kernel elements): one set for each
    input channel and each of a unit's channels.

    Raises:
        ModelError: a weight is not finite.
    """
    for member in group.produced:
        weight = np.moveaxis(_weight(module, member), member.dim, 0)  # an embedding has its channels last
        if weight.ndim < 2:
            continue  # norms and biases have no kernels
        if not np.isfinite(weight).all():
            raise ModelError("weights are not finite", where=member.name, hint="look at the checkpoint")
        kernels = weight.reshape(*weight.shape[:2], -1)[member.indices]  # units, channels of a unit, inputs, elements
        units, channels, inputs, elements = kernels.shape
        yield kernels.reshape(units, channels * inputs, elements).transpose(1, 0, 2)


def _weight(module: nn.Module, member: Member) -> Array:
    from edgeprune.space.cut import tensor_named

    return np.asarray(tensor_named(module, member.name).detach().double().cpu().numpy())


def linkage(kernels: Array) -> Array:
    """Ward's linkage of kernels (n, elements): the n - 1 merges as scipy gives them; heights are sqrt(2 I(A, B)) with
    I = |A||B| / (|A| + |B|) ||m_A - m_B||^2, and never fall. Of two or more: one filter is no group."""
    import fastcluster

    return np.asarray(fastcluster.linkage_vector(kernels, method="ward"), dtype=np.float64)


def cut_height(linkages: Sequence[Array], merges: int) -> float:
    """The least height at which every set of a layer has merged so often: h = max_j d(merges; K_j)."""
    return float(max(merged[merges - 1, 2] for merged in linkages))


def clusters(linkages: Sequence[Array], height: float) -> Labels:
    """The cluster of each kernel, shape (sets, kernels), where all merges up to a height are made."""
    from scipy.cluster.hierarchy import fcluster

    return np.stack([fcluster(merged, height, criterion="distance").astype(np.int32) for merged in linkages])


def cover(labels: Labels, keep: int, rng: np.random.Generator) -> list[int]:
    """Pick units greedily that cover the most clusters, in the order in which they are picked.

    Every kernel scores 1 until one of its cluster is picked, then 0; the unit with the greatest sum over its kernels
    is next, ties at random.

    Args:
        labels: shape (sets, units).
        keep: how many to pick, at most as many as there are.
    """
    sets, units = labels.shape
    numbers = labels + (int(labels.max()) + 1) * np.arange(sets)[:, None]  # of all clusters of all sets
    members = np.argsort(numbers, axis=None, kind="stable")  # cluster by cluster
    members %= units  # in place: there is one for each kernel
    sizes = np.bincount(numbers.ravel())
    starts = np.cumsum(sizes) - sizes
    covered = np.zeros(len(sizes), dtype=bool)
    scores = np.full(units, sets)
    picked: list[int] = []
    for _ in range(keep):
        best = int(rng.choice(np.flatnonzero(scores == scores.max())))
        picked.append(best)
        fresh = numbers[:, best][~covered[numbers[:, best]]]
        covered[fresh] = True
        ends = np.cumsum(sizes[fresh])
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts[fresh] - ends + sizes[fresh], sizes[fresh])
        scores -= np.bincount(members[places], minlength=units)  # each kernel once in all
        scores[best] = -1
    return picked


def coverage(labels: Labels, picked: Sequence[int]) -> int:
    """How many clusters, over all sets, hold a kernel of a picked unit."""
    return sum(len(np.unique(row[list(picked)])) for row in labels)
