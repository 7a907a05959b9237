"""verify: run every exported file on the device and hold its figures against the gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeprune.errors import UsageError
from edgeprune.runs import write_atomic
from edgeprune.stages.context import Context
from edgeprune.stages.export import not_written, read_manifests
from edgeprune.stages.probe import original_file
from edgeprune.target_file import target_file
from edgeprune.tasks.task import Rows
from edgeprune.training.accuracy import predict, rows_of
from edgeprune.verify.check import verify
from edgeprune.verify.execute import Floats, Outputs
from edgeprune.verify.looks import SHOWN, SHOWN_KIND
from edgeprune.verify.shown import shown_images
from edgeprune.verify.speed import is_judged


def verify_stage(context: Context, folder: Path) -> dict[str, Any]:
    recipe = context.recipe
    test = context.splits.test if recipe.verify.images is None else context.splits.test.take(recipe.verify.images)
    objective = context.objective
    rows: dict[str, Rows] = {}
    models = distinct_models(context)
    for number, (word, stage) in enumerate(models.items()):
        context.progress.update(f"{objective.metric.name} of the {word} model", number, len(models))
        rows[word] = rows_of(context.model(stage).module, test, objective)
    merged = context.model("merge").module

    def float_outputs(images: Floats) -> Outputs:
        return predict(merged, torch.from_numpy(images))

    target = recipe.latency_target
    original = original_file(context)
    export_folder = context.run.stage_folder("export")
    manifests, missing = read_manifests(export_folder), not_written(context)
    if target is not None and not any(is_judged(m, recipe.device.runtime, recipe.prune.file) for m in manifests):
        raise UsageError(
            f"no exported file can show that {target} is met: that is said of {target_file(recipe).words}",
            where=str(export_folder),
            hint="; ".join(f"{one.file}: {one.why}" for one in missing)
            or "export that format too; a verdict without its latency would say nothing",
        )
    with context.lease():
        verdict = verify(
            manifests=manifests,
            folder=export_folder,
            device=context.device,
            float_outputs=float_outputs,
            test=test,
            limits=recipe.verify.gates,
            target=target,
            original_file=original,
            target_file=recipe.prune.file,
            runtime=recipe.device.runtime,
            threads=recipe.device.threads,
            protocol=recipe.device.protocol,
            images=recipe.verify.images,
            objective=objective,
            rows=rows,
            untrained=recipe.model.untrained,
            missing=missing,
            progress=context.progress,
        )
    shown = shown_images(_ends(context), test, objective, recipe.verify.pictures)
    write_atomic(folder / SHOWN, SHOWN_KIND.dump_json(shown, indent=1))
    write_atomic(folder / "verdict.json", verdict.model_dump_json(indent=1).encode())
    told: dict[str, list[str]] = {"fail": [], "undecided": []}
    for file in verdict.files:
        for check in file.checks:
            told.get(check.outcome, []).append(f"{file.file}: {check.name}")
    return {
        "outcome": verdict.outcome,
        "accuracy": verdict.accuracy,
        "accuracy_intervals": verdict.accuracy_intervals,
        "failed": told["fail"],
        "undecided": told["undecided"],
        "ship": ", ".join(f"{one.runtime}: {one.file or 'none'}" for one in verdict.shipping),
    }


def distinct_models(context: Context) -> dict[str, str]:
    """The word for each model that is another than the one before it -> its stage: where nothing is pruned, the pruned
    model is the original, and the tuned one as well where nothing is trained."""
    recipe, models = context.recipe, context.pipeline.models()
    if not recipe.prunes:
        models = {word: stage for word, stage in models.items() if stage != "prune"}
        if not recipe.tune.epochs:
            models = {word: stage for word, stage in models.items() if stage != "tune"}
    return models


def _ends(context: Context) -> dict[str, nn.Module]:
    """The unpruned and the final float model, by their words; one where they are the same."""
    words = list(distinct_models(context).items())
    return {word: context.model(stage).module for word, stage in dict.fromkeys((words[0], words[-1]))}
