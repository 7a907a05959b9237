"""`prune.method = "auto"`: short trials of the methods at the target, by successive halving, within the user's time.

Every method chooses at the same predicted cost and its model is tuned for a short time; the better half by accuracy on
the validation images goes on to a training twice as long, until one is left (Jamieson and Talwalkar, AISTATS 2016,
algorithm 1, with a method as an arm). Test images are never looked at.
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict
from torch import nn

from edgeprune.errors import RecipeError, TrainingDiverged
from edgeprune.methods.arms import ARMS, Arm, choose_for_arms, model_of, twins_of
from edgeprune.methods.auto import AutoSettings
from edgeprune.methods.scene import Scene
from edgeprune.metric import ACCURACY, Metric
from edgeprune.recipe import AUTO, PruneSection
from edgeprune.resume import Resumption
from edgeprune.training.accuracy import measure
from edgeprune.training.loop import tune

TRIALS = "trials.json"
CHOOSING = 0.5  # of the time goes into choices, where it is enough: what nobody has trained tells little
SPEED_IMAGES = 512  # that are trained on to see how fast it goes


class Trial(BaseModel):
    """One short training: the metric on the validation images after so many training images, repeated ones counted."""

    model_config = ConfigDict(frozen=True)
    arm: Arm
    round: int  # from 1
    images: int  # all epochs together
    validation: float
    failure: str | None = None  # why there is no accuracy


class Trials(BaseModel):
    """All trials so far. `images`: of the first round's trainings; `left_out`: what could not be tried, and why."""

    model_config = ConfigDict(frozen=True)
    images: int | None = None
    done: tuple[Trial, ...] = ()
    left_out: dict[str, str] = {}
    metric: Metric = ACCURACY

    def words(self, chosen: str) -> str:
        """What spoke for the arm that was chosen, by its name, in one sentence."""
        last = max((trial.round for trial in self.done), default=0)
        told = {str(trial.arm): trial for trial in self.done if trial.round == last and trial.failure is None}
        if len(told) < 2 or chosen not in told:
            return f"Of the methods only {chosen} was left to choose."
        best = told.pop(chosen)
        second = max(told.values(), key=lambda trial: self.metric.rank(trial.validation))
        return (
            f"Of the methods that were tried, {chosen} was chosen: {self.metric.name} "
            f"{self.metric.told(best.validation)} on the validation images after {best.images} training images; "
            f"{second.arm} {self.metric.told(second.validation)}."
        )


def pick_method(scene: Scene, settings: PruneSection) -> tuple[PruneSection, Trials]:
    """The settings with the method and allocator that do best in short trials, and what was tried.

    An interrupted run goes on after its last trial.

    Raises:
        RecipeError: there are no validation images to choose by.
        TargetError: no method can meet the target on this model.
        TrainingDiverged: all that were left diverged in their trials.
    """
    if not len(scene.splits.validation):
        raise RecipeError(
            "prune.method = 'auto' chooses by accuracy on validation images, and there are none",
            hint="set data.validation_images, or name a method",
        )
    minutes = AutoSettings.model_validate(settings.methods.get(AUTO, {})).minutes
    ends = time.monotonic() + minutes * 60
    kept = Resumption(scene.training)
    trials = kept.read(TRIALS, Trials) or Trials(metric=scene.objective.metric)
    seconds = minutes * 60 * CHOOSING
    choices = choose_for_arms(scene, settings, seconds=seconds)
    twins = twins_of(choices.made)
    for name, first in twins.items():
        scene.progress.say(f"{name} chooses the same as {first}: tried once")
    arms = [arm for arm in ARMS if str(arm) in choices.made and str(arm) not in twins]
    same = {name: f"it chooses the same as {first}" for name, first in twins.items()}
    trials = trials.model_copy(update={"left_out": {**choices.left_out, **same}})
    models: dict[Arm, nn.Module] = {}
    if trials.images is None and len(arms) > 1:
        models = {arm: model_of(scene, choices.made[str(arm)]) for arm in arms}
        trials = trials.model_copy(update={"images": _first_images(scene, len(arms), ends - time.monotonic())})
    for number in range(1, rounds_of(len(arms)) + 1):
        scores = {}
        for arm in arms:
            trial = next((t for t in trials.done if (t.arm, t.round) == (arm, number)), None)
            if trial is None:
                if arm not in models:  # of an interrupted run
                    models[arm] = model_of(scene, choices.made[str(arm)])
                trial = _trial(scene, models[arm], arm, number, trials.images or 1)
                trials = trials.model_copy(update={"done": (*trials.done, trial)})
                kept.write(TRIALS, trials)
            if trial.failure is None:
                scores[arm] = trial.validation
        if not scores:
            raise TrainingDiverged(
                f"every trial of round {number} diverged",
                where="prune.method = 'auto'",
                hint=f"lower `lr` in [tune] (it is {scene.recipe.tune.lr:g})",
            )
        arms = sorted(scores, key=lambda arm: -scene.objective.metric.rank(scores[arm]))[: math.ceil(len(arms) / 2)]
        if len(arms) == 1:  # sooner than planned where others diverged
            break
    scene.progress.say(f"chosen by trial: {arms[0]}")
    method, allocator = arms[0]
    return settings.model_copy(update={"method": method, "allocator": allocator}), trials


def rounds_of(arms: int) -> int:
    """How often so many can be halved until one is left."""
    return math.ceil(math.log2(arms)) if arms > 1 else 0


def _first_images(scene: Scene, arms: int, left_s: float) -> int:
    """How many images the first round's trainings may see, so that all rounds together take the time that is left."""
    train, batch = scene.splits.train, scene.recipe.tune.batch_size
    started = time.monotonic()
    try:
        _tuned(scene, scene.model.module, SPEED_IMAGES)
    except TrainingDiverged as error:
        raise TrainingDiverged(
            f"the unpruned model diverges in the training that tells how fast one goes: {error.what}",
            where="prune.method = 'auto'",
            hint=error.hint,
        ) from error
    speed = length_of(SPEED_IMAGES, len(train), batch).trained / (time.monotonic() - started)
    trained = sum(
        math.ceil(arms / 2**number) * 2**number for number in range(rounds_of(arms))
    )  # in first rounds' images
    images = int(max(0.0, left_s) * speed / max(1, trained))
    if images < batch:
        scene.progress.say(f"prune.auto.minutes is short for {arms} methods: one batch each in the first round")
    return max(batch, images)


def _trial(scene: Scene, module: nn.Module, arm: Arm, number: int, first: int) -> Trial:
    asked = first * 2 ** (number - 1)
    images = length_of(asked, len(scene.splits.train), scene.recipe.tune.batch_size).trained
    try:
        figure = measure(_tuned(scene, module, asked), scene.splits.validation, scene.objective)
    except TrainingDiverged as error:
        scene.progress.say(f"trial {number}, {arm}: {error.what}")
        return Trial(arm=arm, round=number, images=images, validation=0.0, failure=error.what)
    scene.progress.say(f"trial {number}, {arm}: validation {scene.objective.metric.told(figure)} after {images} images")
    return Trial(arm=arm, round=number, images=images, validation=figure)


def _tuned(scene: Scene, module: nn.Module, images: int) -> nn.Module:
    """A copy of a model that has seen so many training images: the same ones in every epoch, spread over classes."""
    recipe, train = scene.recipe, scene.splits.train
    teacher = scene.model.module if recipe.tune.distillation > 0 else None
    length = length_of(images, len(train), recipe.tune.batch_size)
    settings = recipe.tune.model_copy(update={"epochs": length.epochs})
    none = scene.splits.validation.take(0)
    shorter, seed = train.take(length.images), recipe.seed
    return tune(module, teacher, shorter, none, settings, seed=seed, snapshots=None, objective=scene.objective).module


class Length(NamedTuple):
    """How long a training is: epochs of so many images, and the images of its whole batches together."""

    epochs: int
    images: int
    trained: int


def length_of(images: int, there: int, batch: int) -> Length:
    """The length of a training that sees so many images, of a split that has `there`."""
    epochs = max(1, math.ceil(images / there))
    each = max(1, images // epochs)
    return Length(epochs, each, epochs * max(1, each // batch) * min(each, batch))
