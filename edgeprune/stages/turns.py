"""Pruning while the model trains: what stays is chosen anew before every turn (`training/gradual.py`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from edgeprune.data.split import Split
from edgeprune.errors import DataError, TargetError
from edgeprune.latency.cost import CostModel
from edgeprune.methods.chex import regrow, regrowth_share
from edgeprune.methods.compact import JUDGED, RuleAllocator, least_cost
from edgeprune.methods.registry import Candidate, judge_of, limits_of, rank
from edgeprune.methods.short_training import TunedLoss
from edgeprune.methods.slimming import Scales, batch_norm_scales
from edgeprune.models.checkpoint import state_digest
from edgeprune.models.spec import Model
from edgeprune.recipe import PruneSection, Recipe
from edgeprune.search.binding import Chooser
from edgeprune.search.judge import AdaptedLoss
from edgeprune.search.path import SMALLER, Choice, Judge
from edgeprune.search.remembered import RememberedLosses
from edgeprune.space.branches import silence_branches
from edgeprune.space.cut import Removed
from edgeprune.space.limits import Limits
from edgeprune.space.masks import zero_units
from edgeprune.space.units import Structure
from edgeprune.stages.context import Context
from edgeprune.stages.snapshots import choosing_of, show_epochs, snapshots_of, write_history
from edgeprune.stages.tune import whole_cycle
from edgeprune.training.gradual import NONE_GONE, Gone, Turn, share_on_the_way, train_in_turns

SLACK = 0.1  # of a predicted latency: only what is out of reach beyond that is refused before it was measured
ROUNDING = 1e-9
SHORT_STEPS = 12  # of training before NetAdapt judges a proposal


@dataclass(frozen=True)
class Budget:
    """What a model may cost on the way to its target: `at` takes a share of the unpruned model's latency, MACs or
    whatever the target is of (1 is all) to what its layers may cost, `share_of` the other way."""

    structure: Structure
    costs: CostModel
    at: Callable[[float], float]
    share_of: Callable[[float], float]
    goal: float
    multiple: int  # of the kept widths
    tolerance: float = 0.0  # that a measured target leaves around its goal

    def choice(self, allocator: Chooser, share: float, *, slack: float = 0.0) -> Choice:
        """What an allocator chooses at a share; the smallest model allowed where that is within the tolerance of it.

        Args:
            slack: of a measured target, beside the tolerance: predictions are no measurements.

        Raises:
            TargetError: the smallest costs more than that.
        """
        try:
            return allocator.within(self.at(share))
        except TargetError:
            return self._smallest(allocator, share, slack)

    def check_goal(self, allocator: Chooser, *, slack: float = 0.0) -> None:
        """Check that an allocator can get to the goal at all.

        Raises:
            TargetError: the smallest model that it allows costs more, by more than the slack of a measured target.
        """
        self._smallest(allocator, self.goal, slack)

    def check_scales(self, scales: Scales, limits: Limits, *, slack: float = 0.0) -> None:
        """Check that layer sparsity by scales can get to the goal, whatever these come to be while the model trains.

        Raises:
            TargetError: with all groups that have scales at their least width the model costs more.
        """
        least = least_cost(self.structure, self.costs, limits, scales.values)
        self._check(least, self.goal, slack, also=JUDGED)

    def _smallest(self, allocator: Chooser, share: float, slack: float) -> Choice:
        smallest = allocator.smallest()
        self._check(smallest.cost, share, slack, also=JUDGED if isinstance(allocator, RuleAllocator) else "")
        return smallest

    def _check(self, least: float, share: float, slack: float, *, also: str) -> None:
        room = (1 + self.tolerance) * (1 + slack) if self.tolerance else 1 + ROUNDING
        if least > self.at(share * room):
            raise TargetError(
                f"{share:.3g}x cannot be reached: the smallest model that the allocator allows would take "
                f"{self.share_of(least):.3g}x",
                hint=f"raise the target, {SMALLER}, or take patterns out of prune.keep{also}",
            )


def candidate_of(context: Context, budget: Budget, settings: PruneSection, model: Model, gone: Gone) -> Candidate:
    """Rank and judge a model some of whose units are gone by now.

    Scores and losses are taken with these units and branches at zero, so they go first again: nothing else tells what
    they are worth. REPrune looks at kernels only, and takes those that the units last had; its losses are taken with
    these units as they last were, too, so that one that comes back is judged by what it would do. Branches that are
    gone stay at zero with every method.
    """
    recipe, train, structure = context.recipe, context.splits.train, budget.structure
    units: Removed = {} if settings.method == "reprune" else gone[0]
    scored = model.with_module(zero_units(model.module, structure, units))
    silence_branches(scored.module, structure, gone[1])
    context.progress.update(f"ranking units by {settings.method}", 0, 1)
    ranking = rank(scored, structure, settings, train, seed=recipe.seed)
    adapted = judge_of(scored, structure, settings, recipe.tune, train, seed=recipe.seed)
    adapted.check()
    judge: Judge = adapted
    folder = choosing_of(context)
    if settings.allocator == "netadapt":  # it trains what it judges: all of [tune] counts
        judge, folder = _tuned_loss(adapted, recipe, train), snapshots_of(context, "prune")
    remembered = RememberedLosses(judge, folder / f"judged-{state_digest(scored.module)[:16]}.jsonl")
    return Candidate(model, structure, ranking, remembered, settings, budget.multiple)


def _tuned_loss(judge: AdaptedLoss, recipe: Recipe, train: Split) -> TunedLoss:
    """NetAdapt's judge, which trains each proposal on other images than it judges by.

    Raises:
        DataError: too few images are left for that.
    """
    size = len(judge.batches[0][1])
    batches = train.batches(size, seed=recipe.seed, augment=recipe.tune.augment)
    others = list(itertools.islice(batches, len(judge.batches), len(judge.batches) + SHORT_STEPS))
    if not (whole := [batch for batch in others if len(batch[1]) == size]):
        raise DataError(
            f"NetAdapt trains each proposal on {size} images or more that it is not judged by: of {len(train)} "
            f"training images too few are left beside prune.judging_images = {recipe.prune.judging_images}",
            hint="lower prune.judging_images, give more training images, or take prune.allocator = 'judged'",
        )
    return TunedLoss(judge, whole, recipe.tune)


def trained_in_turns(context: Context, settings: PruneSection, budget: Budget, folder: Path) -> tuple[Model, Gone]:
    """The model after `prune.epochs` of training, whole, and what was gone in the last turn; its epochs are written
    down in the folder."""
    recipe, model, structure = context.recipe, context.model("load"), budget.structure

    def choose(whole: nn.Module, gone: Gone, turn: Turn) -> Gone:
        if turn.number == 1 and settings.allocator == "scales":  # they move while the model trains
            scales = batch_norm_scales(whole, structure)
            budget.check_scales(scales, limits_of(settings, budget.multiple), slack=SLACK)
            if not scales.tell:
                context.progress.say("turn 1: the scales of batch norms are equal in each layer yet, so nothing is out")
                return NONE_GONE
        candidate = candidate_of(context, budget, settings, model.with_module(whole), gone)
        allocator = candidate.allocator(budget.costs)
        if turn.number == 1 and settings.allocator != "scales":
            budget.check_goal(allocator, slack=SLACK)
        share = budget.goal if settings.regrow else share_on_the_way(budget.goal, turn.goal_progress)
        choice = budget.choice(allocator, share, slack=SLACK)
        removed = dict(choice.removed)
        if settings.regrow:
            back = regrowth_share(settings.regrow, turn.progress)
            rng = np.random.default_rng([recipe.seed, turn.number])
            removed = regrow(whole, structure, removed, back, rng)
        chosen, out = (sum(map(len, units.values())) for units in (choice.removed, removed))
        context.progress.say(
            f"turn {turn.number}: chosen at {share:.3f}x, {out} units and {len(choice.branches)} branches out"
            + (f", {chosen - out} of {chosen} units back" if settings.regrow else "")
        )
        return removed, choice.branches

    trained = train_in_turns(
        model.module,
        structure,
        choose,
        context.splits.train,
        context.splits.validation,
        whole_cycle(recipe),
        epochs=settings.epochs,
        interval=settings.interval,
        seed=recipe.seed,
        snapshots=snapshots_of(context, "prune"),
        on_progress=lambda progress: show_epochs(context, progress),
    )
    write_history(folder, trained.history)
    return model.with_module(trained.module), trained.gone
