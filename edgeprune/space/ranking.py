"""Which units of a group go when it keeps so many: what a method says, and all that an allocator asks of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

Scores = Mapping[str, npt.NDArray[np.float64]]  # group id -> (units,), larger is more important


class Ranking(Protocol):
    """A method's answer for every group and every number of kept units."""

    def gone(self, group: str, keep: int) -> tuple[int, ...]:
        """The units of a group that go when it keeps `keep` of them, ascending; none where it keeps all."""
        ...


class ByScore:
    """The lowest scores go first, so what goes at one width goes at every smaller one; ties go by number."""

    def __init__(self, scores: Scores) -> None:
        self.scores = scores
        self._order = {name: np.argsort(values, kind="stable") for name, values in scores.items()}

    def gone(self, group: str, keep: int) -> tuple[int, ...]:
        order = self._order[group]
        return tuple(sorted(int(unit) for unit in order[: len(order) - keep]))


def gone_of(ranking: Ranking, kept: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The units that go where each group keeps so many, of those groups that lose any."""
    return {name: gone for name, keep in kept.items() if (gone := ranking.gone(name, keep))}
