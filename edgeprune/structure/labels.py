"""Labels: which channel each index of a tensor's dimension is, and which channels are coupled or frozen.

An atom is one index of one dimension of one parameter (or of an operator's result that nobody can follow).
The label of a dimension is an int array with one atom per index, or None where the dimension carries no channels
(batch, height, width, and every dimension of size one: its only index can never go).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from edgeprune.structure.units import Indices

Label: TypeAlias = Indices | None
Labels: TypeAlias = tuple[Label, ...]
Value: TypeAlias = Labels | list[Labels]


@dataclass(frozen=True)
class Components:
    """Connected atoms. `of[atom]` is the component's number; `reason` says why a component is frozen."""

    of: Indices
    reason: dict[int, str]


class AtomTable:
    """All atoms of a model with the couplings between them and the reasons some cannot go."""

    def __init__(self) -> None:
        self.count = 0
        self._left: list[Indices] = []
        self._right: list[Indices] = []
        self._frozen: list[tuple[Indices, str]] = []

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

    def components(self) -> Components:
        """Connected components of the coupling graph."""
        empty: list[Indices] = [np.empty(0, dtype=np.int64)]
        left, right = np.concatenate(self._left or empty), np.concatenate(self._right or empty)
        ones: npt.NDArray[np.int8] = np.ones(len(left), dtype=np.int8)
        graph = coo_matrix((ones, (left, right)), shape=(self.count, self.count))
        _, of = connected_components(graph, directed=False)
        of = of.astype(np.int64)
        reason: dict[int, str] = {}
        for atoms, why in self._frozen:
            for component in np.unique(of[atoms]).tolist():
                reason.setdefault(component, why)
        return Components(of, reason)
