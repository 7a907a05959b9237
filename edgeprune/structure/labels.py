"""Labels: which channel each index of a tensor's dimension is, and which channels are coupled or frozen.

An atom is one index of one dimension of one parameter (or of an operator's result that nobody can follow).
The label of a dimension is an int array with one atom per index, or None where the dimension carries no channels
(batch, height, width, and every dimension of size one: its only index can never go).

Channels that the code lays out over several axes (attention's (heads, head dimension)) can only go in whole rows of
an axis: the layout is a product, its axes have atoms of their own, and a channel is gone when one of its axis atoms is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from edgeprune.structure.units import Indices

Label: TypeAlias = Indices | None
Labels: TypeAlias = tuple[Label, ...]
Value: TypeAlias = Labels | list[Labels]


@dataclass(frozen=True, eq=False)
class Product:
    """Channels laid out over axes: `children[i, j, ...]` goes when index i of the first axis goes, or j of the second.

    An axis without atoms (None) never loses an index.
    """

    children: Indices
    axes: tuple[Label, ...]
    where: str


@dataclass(frozen=True)
class Components:
    """Connected atoms. `of[atom]` is the component's number; `reason` says why a component is frozen.

    `owners[component]`: the components that take it along when they go; those that are not listed go on their own.
    """

    of: Indices
    reason: dict[int, str]
    owners: dict[int, tuple[int, ...]]

    def owners_of(self, component: int) -> tuple[int, ...]:
        return self.owners.get(component, (component,))

    def owners_in(self, components: Indices) -> tuple[Indices, Indices]:
        """(position, owner) of every owner of every component in a row of them."""
        start, flat = self._owner_table
        counts = start[components + 1] - start[components]
        position = np.repeat(np.arange(len(components)), counts)
        within = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        return position, flat[np.repeat(start[components], counts) + within]

    @cached_property
    def _owner_table(self) -> tuple[Indices, Indices]:
        """All components' owners in a row, and where those of each component begin."""
        counts = np.ones(int(self.of.max(initial=-1)) + 1, dtype=np.int64)
        for component, owners in self.owners.items():
            counts[component] = len(owners)
        start = np.concatenate([[0], np.cumsum(counts)])
        flat = np.repeat(np.arange(len(counts)), counts)
        for component, owners in self.owners.items():
            flat[start[component] : start[component + 1]] = owners
        return start, flat


class AtomTable:
    """All atoms of a model with the couplings between them and the reasons some cannot go."""

    def __init__(self) -> None:
        self.count = 0
        self._left: list[Indices] = []
        self._right: list[Indices] = []
        self._frozen: list[tuple[Indices, str]] = []
        self._products: list[Product] = []
        self._layouts: dict[tuple[bytes, tuple[int, ...]], tuple[Label, ...]] = {}
        self.roles: list[tuple[Indices, str]] = []  # what dimensions are to attention: "heads", "qk", "v"

    def fresh(self, count: int) -> Indices:
        """New atoms, coupled with none."""
        self.count += count
        return np.arange(self.count - count, self.count, dtype=np.int64)

    def couple(self, left: Indices, right: Indices) -> None:
        """Atoms at the same position must go together."""
        self._left.append(left.reshape(-1))
        self._right.append(right.reshape(-1))

    def freeze(self, atoms: Indices, reason: str) -> None:
        """These atoms must stay; the first reason given for a component is the one reported."""
        if atoms.size:
            self._frozen.append((atoms.reshape(-1), reason))

    def freeze_all(self, labels: Iterable[Label], reason: str) -> None:
        for label in labels:
            if label is not None:
                self.freeze(label, reason)

    def split(self, label: Indices, shape: tuple[int, ...], where: str) -> tuple[Label, ...]:
        """Lay a dimension out over several axes; the same channels laid out alike have the same axes.

        Args:
            label: of the dimension, (prod(shape),).
            where: the operator and source line, for the reason should the layout turn out not to be followed.
        """
        key = (label.tobytes(), shape)
        if key not in self._layouts:
            children = label.reshape(shape)
            # Along an axis that repeats one channel nothing can go: only the others are laid out.
            varying = [dim for dim in range(len(shape)) if (children != children.take([0], dim)).any()]
            if len(varying) == 1:
                alone = children[tuple(slice(None) if dim in varying else 0 for dim in range(len(shape)))]
                axes: list[Label] = [alone if dim in varying else None for dim in range(len(shape))]
            else:
                axes = [self.fresh(shape[dim]) if dim in varying else None for dim in range(len(shape))]
                self._products.append(Product(children, tuple(axes), where))
            self._layouts[key] = tuple(axes)
        return self._layouts[key]

    def merge(self, axes: tuple[Label, ...], shape: tuple[int, ...], where: str) -> Indices:
        """The label of several dimensions flattened to one, more than one of which carries channels."""
        children = self.fresh(math.prod(shape))
        self._products.append(Product(children.reshape(shape), axes, where))
        return children

    def name(self, label: Label, role: str) -> None:
        """Note what a dimension is; it gives a group that is laid out over it its name."""
        if label is not None:
            self.roles.append((label, role))

    def components(self) -> Components:
        """Connected components of the coupling graph, with what their products imply."""
        while True:
            of = self._connected()
            owners, conflicts = self._parents(of)
            if not conflicts:
                break
            for conflict in conflicts:
                self._settle(conflict)
        reason: dict[int, str] = {}
        for atoms, why in self._frozen:
            for component in np.unique(of[atoms]).tolist():
                reason.setdefault(component, why)
        return _resolved(of, reason, owners)

    def _connected(self) -> Indices:
        empty: list[Indices] = [np.empty(0, dtype=np.int64)]
        left, right = np.concatenate(self._left or empty), np.concatenate(self._right or empty)
        ones: npt.NDArray[np.int8] = np.ones(len(left), dtype=np.int8)
        graph = coo_matrix((ones, (left, right)), shape=(self.count, self.count))
        _, of = connected_components(graph, directed=False)
        return of.astype(np.int64)

    def _parents(self, of: Indices) -> tuple[dict[int, frozenset[int]], list[_Conflict]]:
        """child component -> components of its axes, and children that two layouts say different things of."""
        parents: dict[int, frozenset[int]] = {}
        first: dict[int, tuple[Product, int]] = {}
        conflicts: list[_Conflict] = []
        for product in self._products:
            rows = [_spread(axis, dim, product.children.shape, of) for dim, axis in enumerate(product.axes)]
            table = np.stack([row for row in rows if row is not None], axis=1)
            for place, (child, row) in enumerate(
                zip(of[product.children.reshape(-1)].tolist(), table.tolist(), strict=True)
            ):
                mine = frozenset(row)
                if child not in parents:
                    parents[child], first[child] = mine, (product, place)
                elif parents[child] != mine:
                    conflicts.append(_Conflict(first[child], (product, place)))
        return parents, conflicts

    def _settle(self, conflict: _Conflict) -> None:
        """Two places of one channel: layouts of one shape shrink together, others cannot be followed."""
        (left, a), (right, b) = conflict.left, conflict.right
        if left not in self._products or right not in self._products:
            return  # settled with another place of theirs
        shape = left.children.shape
        if shape == right.children.shape:
            for one, other, i, j in zip(
                left.axes, right.axes, np.unravel_index(a, shape), np.unravel_index(b, shape), strict=True
            ):
                if one is not None and other is not None:
                    self.couple(one[i : i + 1], other[j : j + 1])
                else:
                    self.freeze_all((one, other), f"laid out in two ways: {left.where}, {right.where}")
            return
        reason = f"laid out in two ways: {left.where}, {right.where}"
        for product in (left, right):
            self.freeze_all(product.axes, reason)
            self._products = [p for p in self._products if p is not product]
            self.freeze(product.children, reason)


@dataclass(frozen=True)
class _Conflict:
    left: tuple[Product, int]  # a place, numbered flat
    right: tuple[Product, int]


def _spread(axis: Label, dim: int, shape: tuple[int, ...], of: Indices) -> Indices | None:
    """The components of an axis at every place of a product, flat; None for an axis that never loses an index."""
    if axis is None:
        return None
    along = [1] * len(shape)
    along[dim] = shape[dim]
    return np.broadcast_to(of[axis].reshape(along), shape).reshape(-1)


def _resolved(of: Indices, reason: dict[int, str], parents: dict[int, frozenset[int]]) -> Components:
    """A frozen channel freezes its axes; what is left is owned by the axes at the top."""
    waiting = [child for child in parents if child in reason]
    while waiting:
        child = waiting.pop()
        for parent in parents.get(child, ()):
            if parent not in reason:
                reason[parent] = reason[child]
                waiting.append(parent)
    owners: dict[int, tuple[int, ...]] = {}

    def tops(component: int, below: frozenset[int]) -> frozenset[int]:
        if component in below:
            reason.setdefault(component, "laid out over itself")
            return frozenset()
        if component not in parents:
            return frozenset((component,))
        return frozenset().union(*(tops(parent, below | {component}) for parent in parents[component]))

    for child in parents:
        owners[child] = tuple(sorted(tops(child, frozenset())))
    return Components(of, reason, owners)
