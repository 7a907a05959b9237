"""Methods by name, and the problem that a recipe's method and allocator have to solve."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgeprune import installed
from edgeprune.data.split import Split
from edgeprune.errors import RecipeError
from edgeprune.methods.compact import GlobalThreshold, Uniform
from edgeprune.methods.halp import SummedScores
from edgeprune.methods.isomorphic import AlikeThresholds
from edgeprune.methods.method import Method, ToRank
from edgeprune.methods.netadapt import NetAdapt
from edgeprune.methods.nvit import GroupsByWorth, NvitSettings
from edgeprune.methods.scene import Scene
from edgeprune.methods.short_training import tuned_loss
from edgeprune.methods.slimming import telling_scales
from edgeprune.models.checkpoint import state_digest
from edgeprune.models.spec import Model
from edgeprune.recipe import DROPPING, PruneSection, Target, TuneSection
from edgeprune.recipe_names import recipe_error, wrong_method
from edgeprune.search.additive import AdditiveAllocator
from edgeprune.search.judge import AdaptedLoss
from edgeprune.search.judged_losses import JudgedLosses
from edgeprune.search.path import PathAllocator
from edgeprune.search.problem import Allocator, Judge, OnStep, Problem
from edgeprune.search.rules import Rule, RuleAllocator
from edgeprune.space.branches import silence_branches
from edgeprune.space.decisions import Limits, Space
from edgeprune.space.masks import zero_units
from edgeprune.space.ranking import ByScore, Scores
from edgeprune.space.subnet import WHOLE, Subnet
from edgeprune.space.units import Structure
from edgeprune.tasks.objective import CLASSIFYING, Objective

JUDGING_BATCH = 128


def find_method(name: str) -> type[Method]:
    """The class of an installed method.

    Raises:
        UsageError: no package offers it, two do, or it cannot be loaded.
    """
    found: type[Method] = installed.load(installed.chosen(installed.METHODS, name, "method"), "method")
    return found


def method_of(prune: PruneSection) -> Method:
    """The method of settings that are `resolved`, with what its table says."""
    kind = find_method(prune.method)
    return kind(kind.Settings.model_validate(prune.methods.get(prune.method, {})))


def resolved(prune: PruneSection) -> PruneSection:
    """The settings with an allocator: where none is named, the first that the method goes with.

    Raises:
        RecipeError: there is no such method, its table has a wrong key or value, or it does not go with the allocator.
    """
    if found := wrong_method(prune):
        raise recipe_error(found, "recipe")
    return prune.model_copy(update={"allocator": prune.allocator or find_method(prune.method).allocators[0]})


def judge_of(
    model: Model,
    structure: Structure,
    settings: PruneSection,
    tuning: TuneSection,
    images: Split,
    *,
    seed: int = 0,
    objective: Objective = CLASSIFYING,
) -> AdaptedLoss:
    """A judge on images that are augmented as re-training's: the model has seen the plain ones too often. Its batches
    are alike, of about 128 images."""
    count = min(settings.judging_images, len(images))
    batches = max(1, round(count / JUDGING_BATCH))
    judged = itertools.islice(
        images.batches(count // batches, seed=seed, augment=tuning.augment or objective.task.augment), batches
    )
    return AdaptedLoss(model.module, structure, judged, precision=tuning.precision, objective=objective)


def limits_of(settings: PruneSection, multiple: int) -> Limits:
    """How far a recipe lets a model be cut, to widths of this multiple."""
    drops = settings.allocator in DROPPING
    return Limits(
        multiple, settings.minimum_width, bool(settings.branches) and drops, settings.squeeze_excitation and drops
    )


@dataclass(frozen=True)
class Candidate:
    """A model to choose from, and by what."""

    model: Model
    settings: PruneSection  # with a method and an allocator: `auto` has chosen
    problem: Problem

    def allocator(self, on_step: OnStep | None = None) -> Allocator:
        """The allocator that the recipe asks for; `on_step` is told how far it has come.

        Raises:
            ModelError: it goes by the scales of batch norms, and the model has none that tell layers apart.
            RecipeError: a setting of the method does not go with the target.
        """
        problem = replace(self.problem, on_step=on_step)
        match self.settings.allocator:
            case "judged":
                return PathAllocator(problem)
            case "additive":
                return AdditiveAllocator(problem)
            case "knapsack":
                return AdditiveAllocator(problem, value=SummedScores(self._scores))
            case "netadapt":
                return NetAdapt(problem)
            case "nvit":
                method = method_of(self.settings)
                assert isinstance(method.settings, NvitSettings)  # no other goes with it
                if method.settings.eta is not None and not Target.parse(self.settings.target).is_latency:
                    raise RecipeError(
                        f"eta is what a second is worth, and the target {self.settings.target} is no latency",
                        where="prune.nvit.eta",
                        hint="leave it out: what costs most for its score goes first",
                    )
                return GroupsByWorth(problem, self._scores, method.settings.eta)
        return RuleAllocator(problem, self._rule())

    def _rule(self) -> Rule:
        if self.settings.allocator == "uniform":
            return Uniform(self.problem.structure.sizes)
        if self.settings.allocator == "global":
            return GlobalThreshold(self._scores)
        if self.settings.allocator == "isomorphic":
            return AlikeThresholds(self.model.module, self.problem.structure, self._scores)
        return telling_scales(self.model.module, self.problem.structure)

    @property
    def _scores(self) -> Scores:
        ranking = self.problem.ranking
        assert isinstance(ranking, ByScore), f"{self.settings.method} gives no scores"  # `resolved` refuses that
        return ranking.scores


def candidate_of(
    scene: Scene, settings: PruneSection, model: Model, gone: Subnet = WHOLE, seen: Scores | None = None
) -> Candidate:
    """Rank and judge a model some of whose units are gone by now.

    Scores and losses are taken with these units and branches at zero, so they go first again: nothing else tells what
    they are worth. A method that looks at weights alone (REPrune) takes those that the units last had; its losses are
    taken with these units as they last were, too, so that one that comes back is judged by what it would do. Branches
    that are gone stay at zero with every method.

    Args:
        seen: scores that the method took while the model trained; those of units that are gone count as 0.
    """
    recipe, train, structure = scene.recipe, scene.splits.train, scene.structure
    method = method_of(settings)
    scored = model.with_module(zero_units(model.module, structure, {} if method.of_weights_alone else gone.units))
    silence_branches(scored.module, structure, gone.dropped)
    scene.progress.update(f"ranking units by {settings.method}", 0, 1)
    if seen is not None:
        seen = {name: without(values, gone.units.get(name, ())) for name, values in seen.items()}
    ranking = method.rank(ToRank(scored, structure, train, settings, scene.objective, recipe.seed, seen))
    adapted = judge_of(scored, structure, settings, recipe.tune, train, seed=recipe.seed, objective=scene.objective)
    adapted.check()
    judge: Judge = adapted
    folder = scene.choosing
    if settings.allocator == "netadapt":  # it trains what it judges: all of [tune] counts
        judge, folder = tuned_loss(adapted, recipe, train), scene.training
    remembered = JudgedLosses(judge, folder / f"judged-{state_digest(scored.module)[:16]}.jsonl")
    space = Space(structure, limits_of(settings, scene.multiple))
    return Candidate(model, settings, Problem(space, ranking, scene.costs, remembered))


def without(values: npt.NDArray[np.float64], units: Sequence[int]) -> npt.NDArray[np.float64]:
    """A copy of the scores, 0 for these units."""
    left = values.copy()
    left[list(units)] = 0.0
    return left
