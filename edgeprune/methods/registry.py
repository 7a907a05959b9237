"""What a recipe asks for: its method's ranking, the judge, and its allocator."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from edgeprune.data.split import Split
from edgeprune.latency.cost import CostModel
from edgeprune.methods.compact import GlobalThreshold, Rule, RuleAllocator, Uniform
from edgeprune.methods.halp import SummedScores
from edgeprune.methods.magnitude import score_magnitude
from edgeprune.methods.netadapt import NetAdapt
from edgeprune.methods.reprune import Reprune
from edgeprune.methods.slimming import telling_scales
from edgeprune.methods.taylor import score_taylor
from edgeprune.models.spec import Model
from edgeprune.recipe import DROPPING, PruneSection, TuneSection
from edgeprune.search.additive import AdditiveAllocator
from edgeprune.search.binding import Chooser
from edgeprune.search.judge import AdaptedLoss
from edgeprune.search.path import Allocator, Judge, OnStep
from edgeprune.space.limits import Limits
from edgeprune.space.ranking import ByScore, Ranking, Scores
from edgeprune.space.units import Structure

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
    """A judge on images that are augmented as re-training's: the model has seen the plain ones too often. Its batches
    are alike, of about 128 images."""
    count = min(settings.judging_images, len(images))
    batches = max(1, round(count / JUDGING_BATCH))
    judged = itertools.islice(images.batches(count // batches, seed=seed, augment=tuning.augment), batches)
    return AdaptedLoss(model.module, structure, judged, precision=tuning.precision)


def limits_of(settings: PruneSection, multiple: int) -> Limits:
    """How far a recipe lets a model be cut, to widths of this multiple."""
    drops = settings.allocator in DROPPING
    return Limits(
        multiple, settings.minimum_width, bool(settings.branches) and drops, settings.squeeze_excitation and drops
    )


@dataclass(frozen=True)
class Candidate:
    """A model to choose from: how its units rank, what judges a choice, and what the recipe asks for."""

    model: Model
    structure: Structure  # of the model
    ranking: Ranking
    judge: Judge
    settings: PruneSection  # with a method: `auto` is settled
    multiple: int  # of the kept widths

    def allocator(self, costs: CostModel, on_step: OnStep | None = None) -> Chooser:
        """The allocator that the recipe asks for; `on_step` is told the cost that is left and how many models were
        judged as it goes on.

        Raises:
            ModelError: it goes by the scales of batch norms, and the model has none that tell layers apart.
        """
        settings = self.settings
        asked = self.structure, self.ranking, costs, self.judge, limits_of(settings, self.multiple)
        match settings.allocator:
            case "judged":
                return Allocator(*asked, on_step=on_step)
            case "additive":
                return AdditiveAllocator(*asked)
            case "knapsack":
                return AdditiveAllocator(*asked, value=SummedScores(self._scores))
            case "netadapt":
                return NetAdapt(*asked, on_step=on_step)
        return RuleAllocator(*asked, self._rule())

    def _rule(self) -> Rule:
        if self.settings.allocator == "uniform":
            return Uniform(self.structure.sizes)
        if self.settings.allocator == "global":
            return GlobalThreshold(self._scores)
        return telling_scales(self.model.module, self.structure)

    @property
    def _scores(self) -> Scores:
        assert isinstance(self.ranking, ByScore), f"{self.settings.method} gives no scores"  # the recipe refuses that
        return self.ranking.scores
