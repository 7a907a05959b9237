"""tune: re-train the pruned model with distillation from the unpruned one, epoch by epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeprune.models.checkpoint import save_state
from edgeprune.pruning.unstructured import magnitude_masks, zeros_of
from edgeprune.runs import settings_hash, write_atomic
from edgeprune.stages.context import Context
from edgeprune.training.loop import TuneProgress, tune

SNAPSHOTS = "tune.snapshots"


def tune_stage(context: Context, folder: Path) -> dict[str, Any]:
    recipe = context.recipe
    pruned, original = context.model("prune"), context.model("load")
    # Snapshots live outside the stage's folder: that one is emptied whenever the stage begins anew. The next stage
    # removes them, when this one's record is safely there.
    plan = context.run.record("prune")
    state = plan.files[-1].sha256 if plan else "none"
    snapshots = context.run.folder / SNAPSHOTS / f"{settings_hash(recipe, ('tune', 'data', 'sparse'))}-{state[:12]}"

    def show(progress: TuneProgress) -> None:
        text = f"epoch {progress.epoch}/{progress.epochs}, {progress.images_per_second:.0f} images/s"
        done = (progress.epoch - 1) * progress.steps + progress.step
        context.progress.update(text, done, progress.epochs * progress.steps)

    sparse, masks = recipe.sparse, None
    if sparse.zeros:
        masks = magnitude_masks(pruned.module, zeros=sparse.zeros, scope=sparse.scope, block=sparse.block)
    result = tune(
        pruned.module,
        original.module if recipe.tune.distillation > 0 else None,
        context.splits.train,
        context.splits.validation,
        recipe.tune,
        seed=recipe.seed,
        snapshots=snapshots,
        masks=masks,
        on_progress=show,
    )
    save_state(folder / "model.safetensors", result.module)
    for epoch in result.history:
        shown = "" if epoch.validation is None else f", validation {epoch.validation:.2%}"
        context.progress.say(f"epoch {epoch.epoch}: loss {epoch.loss:.4f}{shown}, {epoch.seconds:.0f} s")
    history = [record.model_dump() for record in result.history]
    write_atomic(folder / "history.json", json.dumps(history, indent=1).encode())
    result.module.eval()
    context.keep_model("tune", pruned.with_module(result.module))
    told: dict[str, Any] = {"epochs": len(history), "last": history[-1] if history else None}
    if masks:
        zeros, weights = zeros_of(result.module)
        told["zeros"] = zeros / weights
    return told
