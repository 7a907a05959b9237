"""Prune to a latency measured on a device: the row of subnets that an allocator chooses, by their predicted share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgeprune.models.spec import Model
from edgeprune.reparam.merge import merge
from edgeprune.search.measured import Attempt, Found, Goal, MeasuredSearch
from edgeprune.search.problem import RAISE, SMALLEST, Allocator, Chosen, Shares
from edgeprune.search.pruned import Pruned, pruned
from edgeprune.space.apply import apply


class Subnets:
    """The row of subnets that an allocator chooses: a place is a share of the unpruned model's latency, both predicted
    (what the device takes for one and the same file drifts, and the table may be of another day)."""

    known = ((1.0, 1.0),)  # the unpruned model
    starts, fastest, hint = 1, SMALLEST, RAISE

    def __init__(
        self,
        model: Model,
        allocator: Allocator,
        shares: Shares,
        goal: Goal,
        folder: Path,
        *,
        granularity: int,
        halves: bool,
    ) -> None:
        """`halves`: widths of half the granularity are tried where those of the whole have nothing in between."""
        self._model, self._allocator, self._shares, self._goal, self._folder = model, allocator, shares, goal, folder
        self._granularity, self._halves, self._written = granularity, halves, 0
        self.low = shares.of(allocator.smallest().cost)

    def begin(self, goal: float) -> Iterator[float]:
        yield goal

    def at(self, place: float) -> Chosen:
        if place < self.low:
            return self._allocator.smallest()
        return self._allocator.within(self._shares.cost_at(place), granularity=self._granularity)

    def place_of(self, model: Chosen) -> float:
        return self._shares.of(model.cost)

    def name_of(self, model: Chosen) -> str:
        return model.subnet.key

    def words_of(self, model: Chosen) -> str:
        return f"predicted {self.place_of(model):.3f}x"

    def finer(self) -> bool:
        if self._granularity == 1 or not self._halves:
            return False
        self._granularity = max(1, self._granularity // 2)
        return True

    def write(self, model: Chosen) -> Path:
        base, self._written = self._model, self._written + 1
        narrow = apply(base.module, self._allocator.problem.structure, model.subnet)
        file = self._folder / f"attempt-{self._written}{self._goal.original.suffix}"
        self._goal.bench.exporter.write(base.with_module(merge(narrow, base.example_input())), file)
        return file


def prune_to_latency(
    model: Model,
    allocator: Allocator,
    shares: Shares,
    goal: Goal,
    folder: Path,
    *,
    granularity: int,
    halves: bool,
    known: Mapping[str, Attempt],
    keep: Callable[[Attempt], None],
) -> Pruned:
    """Predict from the table, measure, correct, repeat; the pruned model whose latency is nearest the target.

    Args:
        shares: of the layers that the latency table knows.
        folder: where files may lie that are measured.
        granularity: of the widths to begin with; `halves` as in `Subnets`.
        known, keep: as in `MeasuredSearch`.

    Raises:
        TargetError: the target is faster than anything reachable, or not faster than the model.
        DeviceError: the device is too noisy to tell.
    """
    row = Subnets(model, allocator, shares, goal, folder, granularity=granularity, halves=halves)
    found: Found[Chosen] = MeasuredSearch(row, goal, known, keep).run()
    return pruned(model, allocator, found.model, shares, found.attempts, found.best)
