"""tune: re-train the pruned model with distillation from the unpruned one, epoch by epoch.

Where a launcher began several processes, the main one does the stage, and the others train with it (`follow_tune`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import RecipeError
from edgeprune.launch import is_main, launched
from edgeprune.models.checkpoint import save_state
from edgeprune.progress import SILENT
from edgeprune.recipe import Recipe, TuneSection
from edgeprune.runs import Run, open_run
from edgeprune.space.weight_masks import Masks, zeros_by_layer
from edgeprune.stages.context import Context
from edgeprune.stages.snapshots import snapshots_of, write_history
from edgeprune.stages.teacher import other_teacher
from edgeprune.stages.zeros import masks_for, words_of_zeros
from edgeprune.tasks.registry import task_of
from edgeprune.training.loop import TuneResult, tune, whole_cycle
from edgeprune.training.mixing import check_mixing
from edgeprune.training.optimizer import check_optimizer
from edgeprune.training.processes import Processes
from edgeprune.training.schedule import peak_rate, steps_per_epoch
from edgeprune.training.trackers import Tracker, check_tracker

LOGS = "logs"  # in the run's folder: a tracker's, of all trainings there


@dataclass(frozen=True)
class _Begin:
    """What the main process tells the others of a training."""

    recipe: Recipe
    masks: Masks | None


def check_tuning(recipe: Recipe) -> None:
    """Check what a recipe asks of training, before hours of work.

    Raises:
        RecipeError: an optimizer or a tracker that there is not; or what does not go with the task or with pruning in
            turns.
        ToolkitMissing: a tracker's package is not installed.
    """
    settings, in_turns = recipe.tune, recipe.prune.epochs > 0
    check_optimizer(settings, in_turns=in_turns)
    check_tracker(settings.tracker)
    if settings.mixup or settings.cutmix:
        check_mixing(task_of(recipe.task))
    if recipe.model.inputs is not None and (settings.mixup or settings.cutmix):
        raise RecipeError(
            "the inputs of [model] are no single image, which could be mixed with another",
            where="tune.cutmix" if settings.cutmix else "tune.mixup",
            hint="leave it out",
        )
    if settings.features and in_turns:
        raise RecipeError(
            "with prune.epochs layers change their width while they train, and tune.features learns from layers",
            where="tune.features",
            hint="leave tune.features or prune.epochs out",
        )
    if settings.teacher_checkpoint is not None and not settings.teacher_checkpoint.is_file():
        raise RecipeError(
            f"there is no file {settings.teacher_checkpoint}",
            where="tune.teacher_checkpoint",
            hint="name the weights of tune.teacher",
        )


def tune_stage(context: Context, folder: Path) -> dict[str, Any]:
    recipe, pruned = context.recipe, context.model("prune")
    check_tuning(recipe)
    masks = masks_for(context, folder)
    _tell_limit(context, whole_cycle(recipe))
    if launched() > 1:
        Processes().from_main(_Begin(recipe, masks))
    tracker = Tracker(recipe.tune.tracker, context.run.folder / LOGS, recipe.tune) if recipe.tune.tracker else None
    result = _trained(context, masks, tracker)
    if tracker is not None:
        tracker.end()
    save_state(folder / "model.safetensors", result.module)
    write_history(folder, result.history)
    result.module.eval()
    context.keep_model("tune", pruned.with_module(result.module))
    last = result.history[-1].model_dump() if result.history else None
    told: dict[str, Any] = {"epochs": len(result.history), "last": last, "precision": result.precision}
    if result.history:
        told |= {"kept": result.kept, "began": result.began}
    if result.processes > 1:
        told["processes"] = result.processes
    if masks:
        layers = zeros_by_layer(result.module, pruned.example_input(), recipe.sparse.layers)
        zeros, weights = (sum(numbers) for numbers in zip(*layers.values(), strict=True))
        told["zeros"] = zeros / weights
        told["zeros_by_layer"] = {name: gone / there for name, (gone, there) in layers.items()}
        context.progress.say(words_of_zeros(told))
    return told


def follow_tune(folder: Path, *, trust: bool = False) -> None:
    """Train with the main process, which does the stage: of a process that a launcher began beside it.

    Raises:
        EdgePruneError: as the stage does.
    """
    begin = Processes().from_main(None)
    if not isinstance(begin, _Begin):
        return
    run = Run(folder, open_run(folder).info.model_copy(update={"recipe": begin.recipe}))
    _trained(Context(run, SILENT, trust=trust), begin.masks)


def _trained(context: Context, masks: Masks | None, tracker: Tracker | None = None) -> TuneResult:
    recipe = context.recipe
    learns = recipe.tune.distillation > 0 or recipe.tune.features > 0
    return tune(
        context.model("prune").module,
        context.model("load").module if learns else None,
        context.splits.train,
        context.splits.validation,
        whole_cycle(recipe),
        seed=recipe.seed,
        snapshots=snapshots_of(context, "tune") if is_main() else None,
        first=recipe.prune.epochs + 1,
        masks=masks,
        objective=context.objective,
        another=other_teacher(context),
        tracker=tracker,
        progress=context.progress,
    )


def _tell_limit(context: Context, settings: TuneSection) -> None:
    """Say where a training is too short for the rate that was asked for."""
    steps = settings.epochs * steps_per_epoch(context.splits.train, settings)
    peak = peak_rate(settings, steps) if steps else settings.lr
    if peak < settings.lr:
        context.progress.say(
            f"in {steps} steps the learning rate rises to {peak:.2g} only, not to {settings.lr:g} (tune.lr): a pruned "
            "model would not settle; with tune.warmup = 0 it begins at that all the same"
        )
