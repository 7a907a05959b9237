"""tune: re-train the pruned model with distillation from the unpruned one, epoch by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.models.checkpoint import save_state
from edgeprune.recipe import TuneSection
from edgeprune.space.weight_masks import zeros_by_layer
from edgeprune.stages.context import Context
from edgeprune.stages.snapshots import snapshots_of, write_history
from edgeprune.stages.zeros import masks_for, words_of_zeros
from edgeprune.training.loop import tune, whole_cycle
from edgeprune.training.schedule import peak_rate, steps_per_epoch


def tune_stage(context: Context, folder: Path) -> dict[str, Any]:
    recipe = context.recipe
    pruned, original = context.model("prune"), context.model("load")
    settings, masks = whole_cycle(recipe), masks_for(context, folder)
    _tell_limit(context, settings)
    result = tune(
        pruned.module,
        original.module if recipe.tune.distillation > 0 else None,
        context.splits.train,
        context.splits.validation,
        settings,
        seed=recipe.seed,
        snapshots=snapshots_of(context, "tune"),
        first=recipe.prune.epochs + 1,
        masks=masks,
        progress=context.progress,
    )
    save_state(folder / "model.safetensors", result.module)
    write_history(folder, result.history)
    result.module.eval()
    context.keep_model("tune", pruned.with_module(result.module))
    last = result.history[-1].model_dump() if result.history else None
    told: dict[str, Any] = {"epochs": len(result.history), "last": last, "precision": result.precision}
    if result.history:
        told |= {"kept": result.kept, "began": result.began}
    if masks:
        layers = zeros_by_layer(result.module, pruned.example_input(), recipe.sparse.layers)
        zeros, weights = (sum(numbers) for numbers in zip(*layers.values(), strict=True))
        told["zeros"] = zeros / weights
        told["zeros_by_layer"] = {name: gone / there for name, (gone, there) in layers.items()}
        context.progress.say(words_of_zeros(told))
    return told


def _tell_limit(context: Context, settings: TuneSection) -> None:
    """Say where a training is too short for the rate that was asked for."""
    steps = settings.epochs * steps_per_epoch(context.splits.train, settings)
    peak = peak_rate(settings, steps) if steps else settings.lr
    if peak < settings.lr:
        context.progress.say(
            f"in {steps} steps the learning rate rises to {peak:.2g} only, not to {settings.lr:g} (tune.lr): a pruned "
            "model would not settle; with tune.warmup = 0 it begins at that all the same"
        )
