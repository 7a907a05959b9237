"""Prune to a target: rank, allocate, and for a latency target measure the result and correct until it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from edgeprune.errors import DeviceError, TargetError
from edgeprune.latency.baseline import Baseline
from edgeprune.latency.cost import CostModel, total
from edgeprune.latency.measurement import Ratio
from edgeprune.latency.predictor import Predictor
from edgeprune.latency.probing import Probing
from edgeprune.methods.registry import Candidate
from edgeprune.models.spec import Model
from edgeprune.recipe import Target
from edgeprune.reparam.merge import merge
from edgeprune.search.binding import Binding, binding
from edgeprune.search.milp import TooManyChoices
from edgeprune.search.path import SMALLER, Choice, OnStep
from edgeprune.search.target import latency_share
from edgeprune.space.apply import make_plan, remove_branches, remove_units
from edgeprune.space.plan import Plan
from edgeprune.space.units import Structure

PLATEAU = 1e-6  # two measured shares that are one and the same


@dataclass(frozen=True)
class Attempt:
    """One turn of the loop: what the table said, what the device said."""

    predicted_share: float  # of the original's predicted cost
    measured: Ratio
    reached_share: float  # what the target is about: the ratio, or for an absolute target seconds over the original's
    within_tolerance: bool
    nothing_nearer: bool = False  # faster than asked, and no choice between that and the target loses less


@dataclass(frozen=True)
class Pruned:
    """A pruned model with the plan that makes it from its base."""

    model: Model
    plan: Plan
    structure: Structure
    choice: Choice
    binding: Binding
    attempts: tuple[Attempt, ...] = ()
    best: Attempt | None = None  # the attempt that was chosen; None for a counted target


def prune_counted(
    candidate: Candidate,
    costs: CostModel,
    budget: float,
    *,
    on_progress: OnStep | None = None,
) -> Pruned:
    """Prune to a budget of MACs, parameters or bytes: these are counted, so the first choice is the answer.

    `on_progress` is told the share of the cost that is left, and how many models were judged, as the allocator goes on.
    """
    now = total(candidate.structure.layers, candidate.structure.sizes, costs)

    def step(cost: float, judged: int) -> None:
        if on_progress is not None:
            on_progress(cost / now, judged)

    allocator = candidate.allocator(costs, step)
    choice = allocator.within(budget)
    return _pruned(candidate, choice, binding(allocator, choice, lambda cost: cost / now))


def prune_predicted(candidate: Candidate, predictor: Predictor, *, on_progress: OnStep) -> Pruned:
    """Prune to a latency that is predicted and never measured: the first choice is the answer, true or not.

    Raises:
        TargetError: the target is not faster than the model, or faster than anything reachable.
    """

    def share_of(cost: float) -> float:
        return predictor.whole(cost) / predictor.unpruned_s

    target = candidate.settings.target
    goal = latency_share(Target.parse(target), predictor.unpruned_s)
    allocator = candidate.allocator(predictor.costs, lambda cost, judged: on_progress(share_of(cost), judged))
    fastest = share_of(allocator.smallest().cost)
    if goal < fastest:
        raise TargetError(
            f"the target {target} is faster than anything reachable: the smallest widths are predicted to "
            f"take {fastest * predictor.unpruned_s * 1e3:.3f} ms ({fastest:.3f}x)",
            hint=f"raise the target, {SMALLER}, or take patterns out of prune.keep",
        )
    choice = allocator.within(predictor.budget(goal * predictor.unpruned_s))
    return _pruned(candidate, choice, binding(allocator, choice, share_of))


class LatencyLoop:
    """Prunes to a latency measured on a device: predict from the table, measure, correct, repeat.

    Args:
        candidate: its structure has the layers that `predictor` knows.
        folder: where files may lie that are measured.
        lease: has the device alone, for each measurement.
    """

    def __init__(
        self,
        candidate: Candidate,
        baseline: Baseline,
        predictor: Predictor,
        probing: Probing,
        folder: Path,
        *,
        lease: Callable[[], AbstractContextManager[None]] = nullcontext,
        on_progress: OnStep,
    ) -> None:
        self.candidate, self.settings, self.baseline = candidate, candidate.settings, baseline
        self.probing, self.folder, self.lease, self.say = probing, folder, lease, probing.on_message
        self.predictor, self.original_s = predictor, baseline.measurement.median_s
        self.target = Target.parse(self.settings.target)
        self.goal = latency_share(self.target, self.original_s)
        self.allocator = candidate.allocator(
            predictor.costs, lambda cost, judged: on_progress(self._share(cost), judged)
        )

    def run(self) -> Pruned:
        """Returns the pruned model whose measured latency is nearest the target.

        Raises:
            TargetError: the target is faster than anything reachable (the message says what is), or not
                faster than the model.
            DeviceError: the device is too noisy to tell.
        """
        floor = self._share(self.allocator.smallest().cost)
        tried: list[tuple[Choice, Attempt]] = []
        again: Choice | None = None
        granularity, share = self.probing.granularity, self.goal
        while len(tried) <= self.settings.corrections:
            if share < floor:
                return self._at_the_floor(tried)
            try:
                choice = self.allocator.within(
                    self.predictor.budget(share * self.predictor.unpruned_s), granularity=granularity
                )
            except (TargetError, TooManyChoices) as error:
                if not tried:
                    raise
                self.say(f"no further attempt: {error.what}")
                break
            if any(same(choice, before) for before, _ in tried):
                if granularity == 1 or self.settings.granularity is not None:
                    again = choice
                    break
                granularity = max(1, granularity // 2)  # no width in between at this step: allow finer ones
                continue
            attempt = self._measure(choice, len(tried) + 1)
            tried.append((choice, attempt))
            if attempt.within_tolerance:
                break
            share = self._next_share([a for _, a in tried])
        return self._best(tried, again)

    def _share(self, cost: float) -> float:
        """Predicted latency of a plan whose layers cost so much, as a share of the original's, predicted too: what
        the device takes for one and the same file drifts, and the table may be of another day."""
        return self.predictor.whole(cost) / self.predictor.unpruned_s

    def _measure(self, choice: Choice, number: int) -> Attempt:
        model = self.candidate.model
        merged = merge(_apply(self.candidate, choice), model.example_input())
        file = self.folder / f"attempt-{number}{self.baseline.file.suffix}"
        self.probing.exporter.write(model.with_module(merged), file)
        with self.lease():
            ratio = self.probing.ratio(file, self.baseline.file)
        reached = ratio.ratio if self.target.unit == "x" else ratio.numerator.median_s / self.original_s
        within = abs(reached / self.goal - 1) <= self.settings.tolerance
        self.say(
            f"attempt {number}: predicted {self._share(choice.cost):.3f}x, measured {ratio.ratio:.3f}x "
            f"({ratio.low:.3f}-{ratio.high:.3f}, {ratio.quality}), target {self.goal:.3f}x"
        )
        return Attempt(self._share(choice.cost), ratio, reached, within)

    def _next_share(self, attempts: list[Attempt]) -> float:
        """The predicted share at which the measured one would be the goal: a line through the two points that
        bracket the goal, or through the two nearest to it. The unpruned model is the point (1, 1)."""
        points = [(1.0, 1.0), *((a.predicted_share, a.reached_share) for a in attempts)]
        slower = [p for p in points if p[1] >= self.goal]
        faster = [p for p in points if p[1] < self.goal]
        if slower and faster:
            (p1, m1), (p2, m2) = min(slower, key=lambda p: p[1]), max(faster, key=lambda p: p[1])
        else:
            (p1, m1), (p2, m2) = sorted(points, key=lambda p: abs(p[1] - self.goal))[:2]
        if abs(m1 - m2) < PLATEAU:
            return p1 * self.goal / m1
        return p2 + (self.goal - m2) * (p1 - p2) / (m1 - m2)

    def _at_the_floor(self, tried: list[tuple[Choice, Attempt]]) -> Pruned:
        """The target asks for less than the smallest widths are predicted to cost: measure them and say."""
        choice = self.allocator.smallest()
        attempt = self._measure(choice, len(tried) + 1)
        reached = attempt.measured
        if attempt.reached_share > self.goal * (1 + self.settings.tolerance):
            fastest = reached.ratio * self.original_s * 1e3
            raise TargetError(
                f"the target {self.settings.target} is faster than anything reachable: the smallest widths take "
                f"{fastest:.3f} ms ({reached.ratio:.3f}x, {reached.quality}) on {self.probing.device.id}",
                hint=f"raise the target, {SMALLER}, or take patterns out of prune.keep",
            )
        return self._best([*tried, (choice, attempt)])

    def _best(self, tried: list[tuple[Choice, Attempt]], again: Choice | None = None) -> Pruned:
        choice, attempt = nearest(tried, self.goal, again)
        if not attempt.within_tolerance and attempt.measured.quality != "stable":
            raise DeviceError(
                f"too noisy to tell whether the target is met ({attempt.measured.evidence})",
                where=self.probing.device.id,
                hint="free the device from other work, or measure longer with device.protocol = 'standard'; "
                "then go on with --resume",
            )
        if attempt.nothing_nearer:
            self.say(f"{attempt.reached_share:.3f}x is faster than asked: nothing between it and the target loses less")
        elif not attempt.within_tolerance:
            self.say(f"the target is missed: {attempt.reached_share:.3f}x is the nearest of {len(tried)} measured")
        binds = binding(self.allocator, choice, self._share)
        return _pruned(self.candidate, choice, binds, tuple(a for _, a in tried), attempt)


def same(a: Choice, b: Choice) -> bool:
    """Whether two choices are the same model."""
    return (a.kept, a.branches) == (b.kept, b.branches)


def nearest(
    tried: Sequence[tuple[Choice, Attempt]], goal: float, again: Choice | None = None
) -> tuple[Choice, Attempt]:
    """Of the choices that were measured the one nearest to a goal; one within the tolerance before all others.

    Args:
        goal: share of the original's latency.
        again: the allocator's answer, at every width that is allowed, to a budget beyond those before, where that was
            tried by then: nothing within that budget loses less.
    """
    choice, attempt = min(tried, key=lambda t: (not t[1].within_tolerance, abs(t[1].reached_share / goal - 1)))
    if again is not None and same(choice, again) and not attempt.within_tolerance and attempt.reached_share < goal:
        return choice, replace(attempt, nothing_nearer=True)
    return choice, attempt


def _pruned(
    candidate: Candidate,
    choice: Choice,
    binds: Binding,
    attempts: tuple[Attempt, ...] = (),
    best: Attempt | None = None,
) -> Pruned:
    model, structure = candidate.model, candidate.structure
    plan = make_plan(model.spec.source, model.module, structure, choice.removed, choice.branches)
    return Pruned(model.with_module(_apply(candidate, choice)), plan, structure, choice, binds, attempts, best)


def _apply(candidate: Candidate, choice: Choice) -> nn.Module:
    structure = candidate.structure
    narrow = remove_units(candidate.model.module, structure, choice.removed)
    return remove_branches(narrow, structure, choice.branches)
