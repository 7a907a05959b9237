"""load: the base model into the run folder, so that the run needs nothing else from then on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgeprune.checksum import file_sha256
from edgeprune.data.open import with_preprocessing
from edgeprune.data.record import RECORD
from edgeprune.data.split import Splits
from edgeprune.errors import DataError, UsageError
from edgeprune.methods.registry import resolved
from edgeprune.methods.slimming import batch_norm_scales, telling_scales
from edgeprune.models.checkpoint import save_state
from edgeprune.models.copies import check_copies
from edgeprune.models.load import load_from
from edgeprune.models.modes import evaluating
from edgeprune.models.spec import Model
from edgeprune.recipe import Target
from edgeprune.runs import write_atomic
from edgeprune.search.zeros import masks_of
from edgeprune.stages.context import Context
from edgeprune.stages.probe import structure_of
from edgeprune.tasks.classification import Classification, check_numbers
from edgeprune.tasks.segmentation import Segmentation
from edgeprune.tasks.task import Outputs, only_tensor
from edgeprune.verify.alarm import Knowledge, check_knowledge, claimed_accuracy, refuse_random
from edgeprune.verify.metric_alarm import KnownMetric, check_metric

LOOKED_AT = 8  # images of a first look


def load_stage(context: Context, folder: Path) -> dict[str, Any]:
    model = load_from(context.recipe.model)
    model = replace(model, spec=with_preprocessing(model.spec, context.recipe.data))
    refuse_random(context.recipe.model)
    context.spec = model.spec
    loaded = model.loaded
    trains = context.recipe.tune.epochs + context.recipe.prune.epochs > 0
    for words in (*model.said, *check_copies(model, trains=trains)):
        context.progress.say(words)
    write_atomic(folder / "spec.json", model.spec.model_dump_json(indent=1).encode())
    save_state(folder / "model.safetensors", model.module)
    splits = context.splits  # data that do not fit are found now, not after an hour of probing
    classes = splits.test.classes
    assert splits.record is not None  # `open_data` makes one
    write_atomic(folder / RECORD, splits.record.to_bytes())
    if not model.spec.labels and len(classes) == model.spec.num_classes:
        model = replace(model, spec=model.spec.model_copy(update={"labels": classes}))
        context.spec = model.spec
        write_atomic(folder / "spec.json", model.spec.model_dump_json(indent=1).encode())
    context.keep_model("load", model)
    _check_what_comes_hours_later(context, model)
    known = _known(context, model)
    result: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "knows": known.record,
        "data": {"sha256": splits.record.sha256, "images": splits.record.counts(), "told": splits.record.told},
    }
    if context.recipe.model.checkpoint is not None:
        result["taken"] = loaded.said if loaded is not None else ""
        result["checkpoint_sha256"] = file_sha256(context.recipe.model.checkpoint)
    return result


def _known(context: Context, model: Model) -> Knowledge | KnownMetric:
    """What the unpruned model knows of the test images, where its task can read its answers and the data's targets."""
    objective, test, section = context.objective, context.splits.test, context.recipe.model
    images, targets = next(iter(test.take(LOOKED_AT).batches(LOOKED_AT)))
    with evaluating(model.module), torch.no_grad():
        answers = model.module(images)
    objective.check(answers, targets)
    if isinstance(objective.task, Segmentation):
        _check_masks(objective.task, objective.read(answers), context.splits)
    if not isinstance(objective.task, Classification):
        return check_metric(model, test, section, objective, progress=context.progress)
    claimed = claimed_accuracy(model.loaded.facts) if model.loaded is not None else None
    return check_knowledge(model, test, section, claimed=claimed, objective=objective, progress=context.progress)


def _check_masks(task: Segmentation, outputs: Outputs, splits: Splits) -> None:
    """Check the class numbers of all masks, which were read when the data were opened.

    Raises:
        DataError: one is beyond the model's classes; names a mask that has it.
    """
    classes = max(2, only_tensor(outputs, task.name).shape[1])
    for split in (splits.train, splits.validation, splits.calibration, splits.test):
        numbers = split.targets.numbers if split.targets is not None else {}
        counted = sorted(numbers.keys() - {task.ignore})
        if not counted:
            continue
        try:
            check_numbers(torch.tensor(counted), classes)
        except DataError as error:
            raise DataError(error.what, where=numbers[counted[-1]], hint=error.hint) from error


def _check_what_comes_hours_later(context: Context, model: Model) -> None:
    recipe, said = context.recipe, context.progress.say
    if recipe.sparse.asked:
        masks_of(model, recipe.sparse, recipe.sparse.zeros)  # refused where no layer can have zeros
        timed = recipe.sparse.target is not None and Target.parse(recipe.sparse.target).is_latency
        if timed and context.typical is not None:
            raise UsageError(
                f"how many zeros {recipe.sparse.target} takes is measured, and {recipe.device.id} is no device",
                where="sparse.target",
                hint="name a device, or ask for a share of zeros (sparse.zeros)",
            )
        if recipe.sparse.layers == "1x1" and "tflite" not in recipe.export.formats:
            said("the zeros of [sparse] save time in a .tflite file alone, and export.formats names none")
    if resolved(recipe.prune).allocator == "scales" and not Target.parse(recipe.prune.target).takes_nothing:
        look = batch_norm_scales if recipe.prune.epochs else telling_scales  # training will tell them apart
        look(model.module, structure_of(context))
    section, tune = recipe.model, recipe.tune
    untrained = section.name is not None and not section.pretrained and section.checkpoint is None
    if untrained and tune.distillation and tune.epochs + recipe.prune.epochs:
        said(
            f"{section.name} has random weights (no model.checkpoint, no model.pretrained), and distillation would "
            "teach what it answers: set tune.distillation = 0 to train from the labels alone"
        )
