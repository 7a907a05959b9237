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
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Indices = npt.NDArray[np.int64]
Mixed = Literal["contracted", "summed"]  # how channels are summed over without weights


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


@dataclass(frozen=True, eq=False)
class Components:
    """Connected atoms. `of[atom]` is the component's number; `reason` says why a component is frozen.

    A component goes when one of its owners goes: itself, or the axes that it is laid out over. Those of component c
    are `owners[begin[c]:begin[c + 1]]`.
    """

    of: Indices
    reason: dict[int, str]
    begin: Indices
    owners: Indices

    @property
    def count(self) -> int:
        return len(self.begin) - 1

    def owners_of(self, component: int) -> list[int]:
        owners: list[int] = self.owners[self.begin[component] : self.begin[component + 1]].tolist()
        return owners

    def owners_in(self, components: Indices) -> tuple[Indices, Indices]:
        """(position, owner) of every owner of every component in a row of them."""
        counts = self.begin[components + 1] - self.begin[components]
        position = np.repeat(np.arange(len(components)), counts)
        within = np.arange(len(position)) - np.repeat(np.cumsum(counts) - counts, counts)
        return position, self.owners[np.repeat(self.begin[components], counts) + within]


class AtomTable:
    """All atoms of a model with the couplings between them and the reasons some cannot go."""

    def __init__(self) -> None:
        self.count = 0
        self._left: list[Indices] = []
        self._right: list[Indices] = []
        self._frozen: list[tuple[Indices, str]] = []
        self._products: list[Product] = []
        self._layouts: dict[tuple[bytes, tuple[int, ...]], tuple[Label, ...]] = {}
        self._known: tuple[tuple[int, int, int], Indices, _Parents] | None = None
        self.roles: list[tuple[Indices, str]] = []  # what dimensions are to attention: "heads", "qk", "v"

    def fresh(self, count: int) -> Indices:
        """New atoms, coupled with none."""
        self.count += count
        return np.arange(self.count - count, self.count, dtype=np.int64)

    def couple(self, left: Indices, right: Indices) -> None:
        """Atoms at the same position must go together."""
        self._left.append(left.reshape(-1))
        self._right.append(right.reshape(-1))

    def couple_parts(self, label: Label, size: int) -> None:
        """Index i of every part of `size` channels must go together, so that the parts stay equal."""
        if label is not None:
            first, *others = label.reshape(-1, size)
            for other in others:
                self.couple(first, other)

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
        of, parents = self._laid_out()
        reason: dict[int, str] = {}
        count = int(of.max(initial=-1)) + 1
        for atoms, why in self._frozen:
            for component in present_in(of[atoms], count).tolist():
                reason.setdefault(component, why)
        return _resolved(of, reason, parents)

    def _laid_out(self) -> tuple[Indices, _Parents]:
        """The component of each atom, and what components are laid out over; what is frozen changes neither."""
        if self._known is None or self._known[0] != self._extent():
            while True:
                of = self._connected()
                parents, conflicts = self._parents(of)
                if not conflicts:
                    break
                for conflict in conflicts:
                    self._resolve(conflict)
            self._known = self._extent(), of, parents
        return self._known[1:]

    def _extent(self) -> tuple[int, int, int]:
        return self.count, len(self._left), len(self._products)

    def _connected(self) -> Indices:
        empty: list[Indices] = [np.empty(0, dtype=np.int64)]
        left, right = np.concatenate(self._left or empty), np.concatenate(self._right or empty)
        ones: npt.NDArray[np.int8] = np.ones(len(left), dtype=np.int8)
        graph = coo_matrix((ones, (left, right)), shape=(self.count, self.count))
        _, of = connected_components(graph, directed=False)
        return of.astype(np.int64)

    def _parents(self, of: Indices) -> tuple[_Parents, list[_Conflict]]:
        """The components of the axes of what is laid out, and what two layouts say different things of."""
        width = max((product.children.ndim for product in self._products), default=1)
        tables = [_rows(product, of, width) for product in self._products]
        sizes = [len(table) for table in tables]
        rows = np.concatenate(tables) if tables else np.empty((0, width), dtype=np.int64)
        children = np.concatenate([of[p.children.reshape(-1)] for p in self._products] or [np.empty(0, dtype=np.int64)])
        child, first, which = np.unique(children, return_index=True, return_inverse=True)
        apart = np.flatnonzero((rows != rows[first[which]]).any(axis=1))
        places = (self._places(np.cumsum([0, *sizes]), at) for at in (first[which[apart]], apart))
        conflicts = [_Conflict(left, right) for left, right in zip(*places, strict=True)]
        return _Parents(child, rows[first]), conflicts

    def _places(self, begin: Indices, rows: Indices) -> list[tuple[Product, int]]:
        """The products that some rows are of, and where in them they are."""
        numbers = np.searchsorted(begin, rows, side="right") - 1
        within = (rows - begin[numbers]).tolist()
        return [(self._products[number], row) for number, row in zip(numbers.tolist(), within, strict=True)]

    def _resolve(self, conflict: _Conflict) -> None:
        """Two places of one channel: layouts of one shape shrink together, others cannot be followed."""
        (left, a), (right, b) = conflict.left, conflict.right
        if left not in self._products or right not in self._products:
            return  # resolved with another place of theirs
        shape = left.children.shape
        alike = [axis is None for axis in left.axes] == [axis is None for axis in right.axes]
        if shape == right.children.shape and alike:
            for one, other, i, j in zip(
                left.axes, right.axes, np.unravel_index(a, shape), np.unravel_index(b, shape), strict=True
            ):
                if one is not None and other is not None:
                    self.couple(one[i : i + 1], other[j : j + 1])
            return
        reason = f"laid out in two ways: {left.where}, {right.where}"
        for product in (left, right):
            self.freeze_all(product.axes, reason)
            self._products = [p for p in self._products if p is not product]
            self.freeze(product.children, reason)


def present_in(numbers: Indices, count: int) -> Indices:
    """The numbers below `count` that are among these, ascending."""
    present = np.zeros(count, dtype=bool)
    present[numbers] = True
    return np.flatnonzero(present).astype(np.int64, copy=False)


@dataclass(frozen=True)
class _Conflict:
    left: tuple[Product, int]  # a place, numbered flat
    right: tuple[Product, int]


@dataclass(frozen=True, eq=False)
class _Parents:
    """What components are laid out over: `rows[i]` holds those of `child[i]`, each once, ascending, -1 in front."""

    child: Indices  # ascending
    rows: Indices


def _rows(product: Product, of: Indices, width: int) -> Indices:
    """The components of the axes at every place of a product, flat: (places, width), each row as in `_Parents`."""
    shape = product.children.shape
    rows = np.full((product.children.size, width), -1, dtype=np.int64)
    for dim, axis in enumerate(product.axes):
        if axis is not None:  # else it never loses an index
            along = [1] * len(shape)
            along[dim] = shape[dim]
            rows[:, dim] = np.broadcast_to(of[axis].reshape(along), shape).reshape(-1)
    rows.sort(axis=1)
    rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = -1
    rows.sort(axis=1)
    return rows


def _resolved(of: Indices, reason: dict[int, str], parents: _Parents) -> Components:
    """A frozen channel freezes its axes; what is left is owned by the axes at the top."""
    count = int(of.max(initial=-1)) + 1
    child, parent = np.repeat(parents.child, (parents.rows >= 0).sum(axis=1)), parents.rows[parents.rows >= 0]
    circular = _circular(parents.child, child, parent, count)
    for component in circular.tolist():
        reason.setdefault(component, "laid out over itself")
    begin = np.searchsorted(child, np.arange(count + 1))
    waiting = [component for component in reason if begin[component] < begin[component + 1]]
    while waiting:
        frozen = waiting.pop()
        for above in parent[begin[frozen] : begin[frozen + 1]].tolist():
            if above not in reason:
                reason[above] = reason[frozen]
                waiting.append(above)
    laid_out = np.zeros(count, dtype=bool)
    laid_out[parents.child] = True
    laid_out[circular] = False  # they are frozen: nobody takes them along
    child, parent = child[laid_out[child]], parent[laid_out[child]]
    while laid_out[parent].any():
        child, parent = _lifted(child, parent, laid_out)
    alone = np.flatnonzero(~laid_out)
    child, parent = np.append(child, alone), np.append(parent, alone)
    order = np.lexsort((parent, child))
    return Components(of, reason, np.searchsorted(child[order], np.arange(count + 1)), parent[order])


def _circular(children: Indices, child: Indices, parent: Indices, count: int) -> Indices:
    """The children that are laid out, however indirectly, over a child that is laid out over itself."""
    open_ = np.zeros(count, dtype=bool)
    open_[children] = True
    while True:
        child, parent = child[open_[parent]], parent[open_[parent]]
        still = np.zeros(count, dtype=bool)
        still[child] = True
        if (still == open_).all():
            return np.flatnonzero(open_)
        open_ &= still


def _lifted(child: Indices, parent: Indices, laid_out: npt.NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """(child, parent) with what a parent is laid out over in its place; each pair once, children ascending."""
    begin = np.searchsorted(child, np.arange(len(laid_out) + 1))
    times = np.where(laid_out[parent], begin[parent + 1] - begin[parent], 1)
    pair = np.repeat(np.arange(len(parent)), times)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(times) - times, times)
    above = parent[pair]
    lifted = laid_out[above]
    above[lifted] = parent[begin[above[lifted]] + within[lifted]]
    pairs = np.sort(child[pair] * len(laid_out) + above)  # np.unique hashes, which takes ten times as long
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]
    return pairs // len(laid_out), pairs % len(laid_out)
