"""The one measured search: of models in a row, from the fastest to the slowest, the one whose latency meets a goal.

What a model takes is predicted first and measured then; the next place in the row is where a line through the measured
points around the goal meets it (regula falsi; a secant while all of them lie on one side). Latencies are noisy and come
in steps, so a line is a guess: it never leaves the bracket, and a place whose model was measured before ends the search
once the row has no finer steps.

Widths to a latency (`channels.py`) and shares of zeros (`zeros.py`) are two rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from edgeprune.errors import DeviceError, TargetError
from edgeprune.latency.bench import Bench
from edgeprune.latency.measurement import Ratio
from edgeprune.recipe import Target
from edgeprune.search.milp import TooManyChoices
from edgeprune.search.problem import out_of_reach
from edgeprune.search.target import latency_share

PLATEAU = 1e-6  # two measured shares that are one and the same
ModelT = TypeVar("ModelT")


class Attempt(BaseModel):
    """A model of a row, measured."""

    model_config = ConfigDict(frozen=True)
    name: str  # of the model, by its content
    place: float  # in the row: it grows with the latency
    measured: Ratio  # over the unpruned model
    reached: float  # what the target is about: the ratio, or for an absolute target seconds over the original's
    within: bool  # the tolerance
    nothing_nearer: bool = False  # faster than asked, and the row has nothing between that and the goal


class Row(Protocol[ModelT]):
    """Models from the fastest to the slowest, by a number that grows with what they are thought to take.

    `known`: places whose latency is known without a measurement; `begin`: those to measure first, `starts` of them.
    `fastest` says what the fastest model is, and `hint` what to do where that is too slow.
    """

    @property
    def low(self) -> float: ...

    @property
    def known(self) -> Sequence[tuple[float, float]]: ...

    @property
    def starts(self) -> int: ...

    @property
    def fastest(self) -> str: ...

    @property
    def hint(self) -> str: ...

    def begin(self, goal: float) -> Iterator[float]: ...

    def at(self, place: float) -> ModelT:
        """The model at a place, or the next that is faster; the fastest at `low` and below.

        Raises:
            TargetError: there is none; TooManyChoices.
        """
        ...

    def place_of(self, model: ModelT) -> float: ...

    def name_of(self, model: ModelT) -> str: ...

    def write(self, model: ModelT) -> Path:
        """A file of the model that runs on the device."""
        ...

    def finer(self) -> bool:
        """Go on in finer steps; false where there are none, or none are wanted."""
        ...

    def words_of(self, model: ModelT) -> str:
        """What the model is, for a message."""
        ...


@dataclass(frozen=True)
class Goal:
    """A latency that is asked for, and what it is measured against.

    Args:
        original: the unpruned model's file; `original_s` is what it takes.
        tolerance: around the target, relative.
        corrections: measurements after the first ones.
        lease: has the device alone, for each measurement.
        where: the recipe's key that asks for it.
    """

    target: Target
    original: Path
    original_s: float
    tolerance: float
    corrections: int
    bench: Bench
    lease: Callable[[], AbstractContextManager[None]] = nullcontext
    where: str | None = None

    @property
    def share(self) -> float:
        """As a share of the original's latency.

        Raises:
            TargetError: the target is not faster than the model.
        """
        return latency_share(self.target, self.original_s)

    def reached(self, ratio: Ratio) -> float:
        """What of a measured ratio the target is about."""
        return ratio.ratio if self.target.unit == "x" else ratio.numerator.median_s / self.original_s

    def within(self, reached: float) -> bool:
        return abs(reached / self.share - 1) <= self.tolerance


@dataclass(frozen=True)
class Found(Generic[ModelT]):
    """The model that was chosen, its attempt, and all attempts in order."""

    model: ModelT
    best: Attempt
    attempts: tuple[Attempt, ...]


@dataclass
class MeasuredSearch(Generic[ModelT]):
    """Finds the model of a row whose measured latency is nearest a goal.

    Args:
        known: attempts of an interrupted search, by name, which are not measured again.
        keep: gets each attempt that is worth knowing (not a noisy one) as soon as it is made.
    """

    row: Row[ModelT]
    goal: Goal
    known: Mapping[str, Attempt] = field(default_factory=dict)
    keep: Callable[[Attempt], None] = lambda _: None

    def run(self) -> Found[ModelT]:
        """The model whose measured latency is nearest the goal; one within the tolerance before all others.

        Raises:
            TargetError: even the fastest model of the row is slower (the message says what it takes), or the target is
                not faster than the unpruned model.
            DeviceError: the device is too noisy to tell.
        """
        goal, say = self.goal.share, self.goal.bench.progress.say
        begin, most = self.row.begin(goal), self.row.starts + self.goal.corrections
        tried: list[tuple[ModelT, Attempt]] = []
        again: str | None = None  # the model that came again where nothing finer is left
        place = next(begin, None)
        while place is not None and len(tried) < most:
            try:
                model = self.row.at(place)
            except (TargetError, TooManyChoices) as error:
                if not tried:
                    raise
                say(f"no further attempt: {error.what}")
                break
            name = self.row.name_of(model)
            if any(name == attempt.name for _, attempt in tried):
                if place > self.row.low and self.row.finer():  # no model in between at these steps: allow finer ones
                    continue
                again = name
                break
            attempt = self._measured(model, name, len(tried) + 1)
            tried.append((model, attempt))
            if attempt.within:
                break
            if place <= self.row.low:
                self._check_reached(attempt)
            place = next(begin, None)
            if place is None:
                place = self._next([attempt for _, attempt in tried])
        return self._found(tried, again)

    def _measured(self, model: ModelT, name: str, number: int) -> Attempt:
        """A model's attempt, as it is known or as it is measured now."""
        if (known := self.known.get(name)) is not None:
            return known.model_copy(
                update={"within": self.goal.within(known.reached), "place": self.row.place_of(model)}
            )
        file = self.row.write(model)
        with self.goal.lease():
            ratio = self.goal.bench.ratio(file, self.goal.original)
        reached = self.goal.reached(ratio)
        self.goal.bench.progress.say(
            f"attempt {number}: {self.row.words_of(model)}, measured {ratio.ratio:.3f}x "
            f"({ratio.low:.3f}-{ratio.high:.3f}, {ratio.quality}), target {self.goal.share:.3f}x"
        )
        attempt = Attempt(
            name=name,
            place=self.row.place_of(model),
            measured=ratio,
            reached=reached,
            within=self.goal.within(reached),
        )
        if ratio.quality == "stable":
            self.keep(attempt)
        return attempt

    def _next(self, attempts: Sequence[Attempt]) -> float | None:
        """The place at which the latency would be the goal; None where the row has nothing there."""
        points = [*self.row.known, *((attempt.place, attempt.reached) for attempt in attempts)]
        return next_place(points, self.goal.share)

    def _check_reached(self, fastest: Attempt) -> None:
        """Check that the fastest model of the row is fast enough.

        Raises:
            TargetError: it is not.
        """
        goal = self.goal
        if fastest.reached > goal.share * (1 + goal.tolerance):
            took = fastest.reached * goal.original_s * 1e3
            raise out_of_reach(
                f"the target {goal.target}",
                f"{took:.3f} ms ({fastest.measured.ratio:.3f}x, {fastest.measured.quality}) on {goal.bench.device.id}",
                by=self.row.fastest,
                where=goal.where,
                hint=self.row.hint,
            )

    def _found(self, tried: Sequence[tuple[ModelT, Attempt]], again: str | None) -> Found[ModelT]:
        goal, say = self.goal, self.goal.bench.progress.say
        model, best = nearest(tried, goal.share, again)
        if not best.within and best.measured.quality != "stable":
            raise DeviceError(
                f"too noisy to tell whether the target {goal.target} is met ({best.measured.evidence})",
                where=goal.bench.device.id,
                hint="free the device from other work, or measure longer with device.protocol = 'standard'; "
                "then go on with --resume",
            )
        if best.nothing_nearer:
            say(f"{best.reached:.3f}x is faster than asked: nothing between it and the target loses less")
        elif not best.within:
            say(f"the target is missed: {best.reached:.3f}x is the nearest of {len(tried)} measured")
        return Found(model, best, tuple(attempt for _, attempt in tried))


def next_place(points: Sequence[tuple[float, float]], goal: float) -> float | None:
    """The place at which a line through the points around a goal, or the two nearest to it, meets it.

    Args:
        points: (place, share), of which shares grow with places but for noise.

    Returns:
        a place strictly inside of the bracket, where there is one; None for fewer than two points.
    """
    slower = [point for point in points if point[1] >= goal]
    faster = [point for point in points if point[1] < goal]
    if slower and faster:
        (p1, m1), (p2, m2) = min(slower, key=lambda p: (p[1], p[0])), max(faster, key=lambda p: (p[1], p[0]))
        if p1 <= p2 or m1 - m2 < PLATEAU:  # noise, or a step: the line tells nothing
            return (p1 + p2) / 2
    elif len(points) < 2:
        return None
    else:
        side = 1 if slower else -1  # of equal ones that on the way to the goal comes first
        (p1, m1), (p2, m2) = sorted(points, key=lambda p: (abs(p[1] - goal), side * p[0]))[:2]
        if (m1 - m2) * (p1 - p2) <= 0 or abs(m1 - m2) < PLATEAU:
            return p1 * goal / m1
    return p2 + (goal - m2) * (p1 - p2) / (m1 - m2)


def nearest(tried: Sequence[tuple[ModelT, Attempt]], goal: float, again: str | None = None) -> tuple[ModelT, Attempt]:
    """Of the models that were measured the one nearest to a goal; one within the tolerance before all others.

    Args:
        goal: share of the original's latency.
        again: the model that the row has, at its finest, at a place beyond those before, where that was tried by then:
            nothing between it and the goal loses less.
    """
    model, best = min(tried, key=lambda t: (not t[1].within, abs(t[1].reached / goal - 1)))
    if best.within or best.reached >= goal:
        return model, best
    last = next(((one, attempt) for one, attempt in tried if attempt.name == again), None)
    if last is not None and all(attempt.reached < goal for _, attempt in tried):
        model, best = last  # the slowest: among faster ones noise alone says which is nearer
    return model, best.model_copy(update={"nothing_nearer": best.name == again})
