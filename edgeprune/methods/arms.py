"""What `prune.method = "auto"` tries: pairs of method and allocator, and what each of them would take out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import nn

from edgeprune.errors import DataError, TargetError, UsageError
from edgeprune.methods.gradual import choice_at
from edgeprune.methods.refit import refit
from edgeprune.methods.registry import candidate_of
from edgeprune.methods.scene import Scene
from edgeprune.recipe import DROPPING, AllocatorName, Method, PruneSection
from edgeprune.resume import Resumption
from edgeprune.search.judged_losses import JudgedLosses
from edgeprune.search.path import EXCHANGES, PathAllocator
from edgeprune.search.problem import Allocator, Chosen
from edgeprune.space.apply import apply


class Arm(NamedTuple):
    """What is tried."""

    method: Method
    allocator: AllocatorName

    def __str__(self) -> str:
        return f"{self.method} ({self.allocator})"


FILE = "choices.json"
ARMS = (
    Arm("taylor", "judged"),
    Arm("magnitude", "judged"),
    Arm("reprune", "judged"),
    Arm("taylor", "knapsack"),
    Arm("magnitude", "uniform"),
    Arm("reprune", "scales"),
)


class Choices(BaseModel):
    """What the arms chose so far, by name, and what cannot be tried, and why. `exchanges`: how many models may be
    judged for exchanges, as a multiple of those on the way down; None until these have told how long that takes."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")
    exchanges: float | None = None
    made: dict[str, Chosen] = {}
    left_out: dict[str, str] = {}


def choose_for_arms(scene: Scene, settings: PruneSection, *, seconds: float) -> Choices:
    """Each arm's choice at the target. All go down to it; what is then left of the time goes into exchanges, as many
    for each as for the others. What is chosen is kept, and not chosen again by an interrupted run, nor where that goes
    on with another [tune], of which choices see only how images are augmented and with what precision they are judged.

    Raises:
        TargetError: no arm can meet the target on this model.
    """
    ends = time.monotonic() + seconds
    kept = Resumption(scene.choosing)
    found = kept.read(FILE, Choices) or Choices()
    down: dict[Arm, PathAllocator] = {}
    walked_s = 0.0
    for arm in ARMS:
        if str(arm) in found.made or str(arm) in found.left_out:
            continue
        try:
            allocator = _allocator(scene, settings, arm)
            choice = choice_at(scene, allocator, scene.shares.goal)
        except DataError:
            raise  # of the images, not of the method
        except UsageError as error:
            scene.progress.say(f"not tried: {arm}: {error.what}")
            found = _keep(kept, found, left_out={**found.left_out, str(arm): error.what})
            continue
        if isinstance(allocator, PathAllocator):
            down[arm] = allocator
            judge = allocator.problem.judge
            assert isinstance(judge, JudgedLosses)
            walked_s += judge.spent_s
        else:
            found = _keep(kept, found, made={**found.made, str(arm): choice})
    if found.exchanges is None and down:
        exchanges = min(float(EXCHANGES), max(0.0, (ends - time.monotonic()) / walked_s))
        if exchanges < EXCHANGES:
            scene.progress.say(
                f"prune.auto.minutes is short: {exchanges:.1f} times as many models judged for exchanges as on the way "
                f"down to the target, where {EXCHANGES} are usual"
            )
        found = _keep(kept, found, exchanges=exchanges)
    for arm, exchanging in down.items():
        exchanging.exchanges = found.exchanges or 0.0
        choice = choice_at(scene, exchanging, scene.shares.goal)
        found = _keep(kept, found, made={**found.made, str(arm): choice})
    if not found.made:
        raise TargetError(
            "none of the methods can meet the target on this model",
            where=settings.target,
            hint="; ".join(f"{', '.join(names)}: {why}" for why, names in _by_reason(found.left_out).items()),
        )
    return found


def twins_of(made: Mapping[str, Chosen]) -> dict[str, str]:
    """The arms that choose what one before them chooses (in the order of `ARMS`), each with the first that does."""
    first: dict[str, str] = {}
    twins: dict[str, str] = {}
    for name in (str(arm) for arm in ARMS if str(arm) in made):
        if name != (original := first.setdefault(made[name].subnet.key, name)):
            twins[name] = original
    return twins


def model_of(scene: Scene, chosen: Chosen) -> nn.Module:
    """The pruned model of a choice, refitted."""
    pruned = apply(scene.model.module, scene.structure, chosen.subnet)
    refit(scene, pruned, scene.model, scene.structure, chosen.subnet)
    return pruned


def _allocator(scene: Scene, settings: PruneSection, arm: Arm) -> Allocator:
    """An arm's allocator, which exchanges nothing yet.

    Raises:
        UsageError: it cannot do as the recipe asks.
    """
    asked, there = scene.recipe.prune, scene.structure.branches
    gates = asked.squeeze_excitation and any(branch.gate for branch in there)
    branches = asked.branches and any(not branch.gate for branch in there)
    if (branches or gates) and arm.allocator not in DROPPING:
        raise UsageError("it lets neither branches nor squeeze-excitation go, and the recipe asks for that")
    own = settings.model_copy(update={"method": arm.method, "allocator": arm.allocator})

    def show(cost: float, judged: int) -> None:
        left = scene.shares.of(cost)
        scene.progress.update(
            f"{arm} chooses: {left:.2f}x so far, {judged} models judged", round((1 - left) * 100), 100
        )

    allocator = candidate_of(scene, own, scene.model).allocator(show)
    if isinstance(allocator, PathAllocator):
        allocator.exchanges = 0.0
    return allocator


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in left_out.items():
        found.setdefault(why, []).append(name)
    return found


def _keep(kept: Resumption, choices: Choices, **news: object) -> Choices:
    more = choices.model_copy(update=news)
    kept.write(FILE, more)
    return more
