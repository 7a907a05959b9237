"""Pruning while the model trains: what stays is chosen anew before every turn (`training/turns.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from edgeprune.errors import TargetError
from edgeprune.methods.chex import regrow, regrowth_share
from edgeprune.methods.registry import candidate_of, limits_of, method_of
from edgeprune.methods.scene import Scene
from edgeprune.methods.slimming import Scales, batch_norm_scales
from edgeprune.models.spec import Model
from edgeprune.recipe import PruneSection
from edgeprune.search.problem import Allocator, Chosen
from edgeprune.search.rules import JUDGED, RuleAllocator, least_cost
from edgeprune.space.decisions import Space
from edgeprune.space.ranking import Scores
from edgeprune.space.subnet import WHOLE, Subnet
from edgeprune.training.loop import whole_cycle
from edgeprune.training.snapshot import EpochRecord
from edgeprune.training.turns import Turn, share_on_the_way, train_in_turns

SLACK = 0.1  # of a predicted latency: only what is out of reach beyond that is refused before it was measured


def choice_at(scene: Scene, allocator: Allocator, share: float, *, slack: float = 0.0) -> Chosen:
    """What an allocator chooses at a share; the smallest model allowed where that is within the tolerance of it.

    Args:
        slack: of a measured target, beside the tolerance: predictions are no measurements.

    Raises:
        TargetError: the smallest costs more than that.
    """
    try:
        return allocator.within(scene.shares.cost_at(share))
    except TargetError:
        return smallest_at(scene, allocator, share, slack)


def smallest_at(scene: Scene, allocator: Allocator, share: float, slack: float) -> Chosen:
    """The smallest model that an allocator allows, checked to reach a share."""
    smallest = allocator.smallest()
    scene.shares.check(smallest.cost, share, slack=slack, also=JUDGED if isinstance(allocator, RuleAllocator) else "")
    return smallest


def check_scales(scene: Scene, settings: PruneSection, scales: Scales) -> None:
    """Check that layer sparsity by scales can get to the goal, whatever these come to be while the model trains.

    Raises:
        TargetError: with all groups that have scales at their least width the model costs more.
    """
    least = least_cost(Space(scene.structure, limits_of(settings, scene.multiple)), scene.costs, scales.values)
    scene.shares.check(least, scene.shares.goal, slack=SLACK, also=JUDGED)


@dataclass(frozen=True)
class InTurns:
    """The model after its turns, whole, what was gone in the last of them, its epochs, and the scores that the method
    took meanwhile, where it does."""

    model: Model
    gone: Subnet
    history: Sequence[EpochRecord]
    seen: Scores | None


def trained_in_turns(scene: Scene, settings: PruneSection) -> InTurns:
    """Train for `prune.epochs`, and choose what stays anew before every turn."""
    recipe, model, structure, goal = scene.recipe, scene.model, scene.structure, scene.shares.goal
    watch = method_of(settings).watching(model.module, structure)

    def choose(whole: nn.Module, gone: Subnet, turn: Turn) -> Subnet:
        if turn.number == 1 and settings.allocator == "scales":  # they move while the model trains
            scales = batch_norm_scales(whole, structure)
            check_scales(scene, settings, scales)
            if not scales.tell:
                scene.progress.say("turn 1: the scales of batch norms are equal in each layer yet, so nothing is out")
                return WHOLE
        seen = watch.scores() if watch is not None else None
        allocator = candidate_of(scene, settings, model.with_module(whole), gone, seen).allocator()
        if turn.number == 1 and settings.allocator != "scales":
            smallest_at(scene, allocator, goal, SLACK)
        share = goal if settings.regrow else share_on_the_way(goal, turn.goal_progress)
        subnet = choice_at(scene, allocator, share, slack=SLACK).subnet
        removed = dict(subnet.units)
        if settings.regrow:
            back = regrowth_share(settings.regrow, turn.progress)
            rng = np.random.default_rng([recipe.seed, turn.number])
            removed = regrow(whole, structure, removed, back, rng)
        chosen, out = (sum(map(len, units.values())) for units in (subnet.units, removed))
        scene.progress.say(
            f"turn {turn.number}: chosen at {share:.3f}x, {out} units and {len(subnet.dropped)} branches out"
            + (f", {chosen - out} of {chosen} units back" if settings.regrow else "")
        )
        return Subnet(removed, subnet.dropped)

    trained = train_in_turns(
        model.module,
        structure,
        choose,
        scene.splits.train,
        scene.splits.validation,
        whole_cycle(recipe),
        epochs=settings.epochs,
        interval=settings.interval,
        seed=recipe.seed,
        snapshots=scene.training,
        objective=scene.objective,
        another=scene.another(),
        watch=watch,
        progress=scene.progress,
    )
    seen = watch.scores() if watch is not None else None
    return InTurns(model.with_module(trained.module), trained.gone, trained.history, seen)
