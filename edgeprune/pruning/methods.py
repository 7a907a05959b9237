"""What a recipe asks for: its method's ranking, the judge, and its allocator."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

from torch import nn

from edgeprune.data.split import Split
from edgeprune.latency.cost import CostModel
from edgeprune.models.spec import Model
from edgeprune.pruning.additive import AdditiveAllocator
from edgeprune.pruning.allocate import Allocator, Judge, Limits
from edgeprune.pruning.binding import Chooser
from edgeprune.pruning.judge import AdaptedLoss
from edgeprune.pruning.knapsack import SummedScores
from edgeprune.pruning.magnitude import score_magnitude
from edgeprune.pruning.netadapt import NetAdapt
from edgeprune.pruning.ranking import ByScore, Ranking, Scores
from edgeprune.pruning.reprune import Reprune
from edgeprune.pruning.rules import GlobalThreshold, Rule, RuleAllocator, Uniform
from edgeprune.pruning.scales import telling_scales
from edgeprune.pruning.taylor import score_taylor
from edgeprune.recipe import DROPPING, PruneSection, TuneSection
from edgeprune.structure.units import Structure

MICRO_BATCHES = 8  # of which `prune.scoring_batches` counts one batch
SCORING_BATCH = 16  # Taylor's square is taken per micro-batch: small ones keep the gradient's variance in the score
JUDGING_BATCH = 128


def rank(model: Model, structure: Structure, settings: PruneSection, images: Split, *, seed: int = 0) -> Ranking:
    """Rank the units of every group by the method of the recipe."""
    assert settings.method != "auto", "that is settled first (stages/trials.py)"
    if settings.method == "reprune":
        return Reprune(model.module, structure, seed=seed)
    if settings.method == "magnitude":
        return ByScore(score_magnitude(model.module, structure))
    batches = itertools.islice(images.batches(SCORING_BATCH, seed=seed), settings.scoring_batches * MICRO_BATCHES)
    power: Literal[1, 2] = 1 if settings.allocator == "knapsack" else 2  # HALP adds |dL/dz| up
    return ByScore(score_taylor(model.module, structure, list(batches), power=power))


def judge_of(
    model: Model, structure: Structure, settings: PruneSection, tuning: TuneSection, images: Split, *, seed: int = 0
) -> AdaptedLoss:
    """A judge on images that are augmented as re-training's: the model has seen the plain ones too often."""
    count = min(settings.judging_images, len(images))
    batches = images.batches(min(JUDGING_BATCH, count), seed=seed, augment=tuning.augment)
    judged = itertools.islice(batches, max(1, count // JUDGING_BATCH))
    return AdaptedLoss(model.module, structure, judged, precision=tuning.precision)


def allocator_of(
    module: nn.Module,
    structure: Structure,
    ranking: Ranking,
    judge: Judge,
    costs: CostModel,
    settings: PruneSection,
    *,
    multiple: int,
    on_step: Callable[[float], None] | None = None,
) -> Chooser:
    """The allocator that the recipe asks for.

    Args:
        module: the model that `structure` was found in.
        multiple: of the kept widths.

    Raises:
        ModelError: it goes by the scales of batch norms, and the model has none that tell layers apart.
    """
    drops = settings.allocator in DROPPING
    limits = Limits(multiple, settings.minimum_width, bool(settings.branches) and drops, settings.gates and drops)
    match settings.allocator:
        case "judged":
            return Allocator(structure, ranking, costs, judge, limits, on_step=on_step)
        case "additive":
            return AdditiveAllocator(structure, ranking, costs, judge, limits)
        case "knapsack":
            value = SummedScores(_scores(ranking, settings))
            return AdditiveAllocator(structure, ranking, costs, judge, limits, value=value)
        case "netadapt":
            return NetAdapt(structure, ranking, costs, judge, limits, on_step=on_step)
    return RuleAllocator(structure, ranking, costs, judge, limits, _rule(module, structure, ranking, settings))


def _rule(module: nn.Module, structure: Structure, ranking: Ranking, settings: PruneSection) -> Rule:
    if settings.allocator == "uniform":
        return Uniform(structure.sizes)
    if settings.allocator == "global":
        return GlobalThreshold(_scores(ranking, settings))
    return telling_scales(module, structure)


def _scores(ranking: Ranking, settings: PruneSection) -> Scores:
    assert isinstance(ranking, ByScore), f"{settings.method} gives no scores"  # the recipe refuses that
    return ranking.scores
