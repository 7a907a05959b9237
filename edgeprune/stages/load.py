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
from edgeprune.errors import UsageError
from edgeprune.methods.registry import resolved
from edgeprune.methods.slimming import batch_norm_scales, telling_scales
from edgeprune.models.checkpoint import save_state
from edgeprune.models.copies import check_copies
from edgeprune.models.load import load_from
from edgeprune.models.spec import Model, ModelSpec
from edgeprune.recipe import CLASSIFICATION, Target, TaskSection
from edgeprune.runs import write_atomic
from edgeprune.search.zeros import masks_of
from edgeprune.stages.context import Context
from edgeprune.stages.probe import structure_of
from edgeprune.tasks.classification import check_logits
from edgeprune.verify.alarm import refuse_random
from edgeprune.verify.known import check_known


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
    _check_is_classifier(context.recipe.task, model.spec)
    splits = context.splits  # data that do not fit are found now, not after an hour of probing
    assert splits.record is not None  # `open_data` makes one
    write_atomic(folder / RECORD, splits.record.to_bytes())
    named = with_labels(model, splits)
    if named is not model:
        model, context.spec = named, named.spec
        write_atomic(folder / "spec.json", model.spec.model_dump_json(indent=1).encode())
    context.keep_model("load", model)
    _check_what_comes_hours_later(context, model)
    others = (splits.train, splits.validation, splits.calibration)
    known = check_known(
        model, splits.test, context.recipe.model, context.objective, others=others, progress=context.progress
    )
    result: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "knows": known.record,
        "data": {"sha256": splits.record.sha256, "images": splits.record.counts(), "told": splits.record.told},
    }
    if context.recipe.model.checkpoint is not None:
        result["taken"] = loaded.said if loaded is not None else ""
        result["checkpoint_sha256"] = file_sha256(context.recipe.model.checkpoint)
    return result


def _check_is_classifier(task: TaskSection, spec: ModelSpec) -> None:
    """A recipe that names no task is a classifier's: whoever forgot to name it is told so, before folders of images and
    masks are taken for classes."""
    if task.name == CLASSIFICATION and task.output is None and len(spec.outputs) == 1:
        check_logits(torch.zeros(spec.outputs[0].shape))


def with_labels(model: Model, splits: Splits) -> Model:
    """The model with the data's class names, where it has none of its own and they are as many as its outputs."""
    classes = splits.test.classes
    if model.spec.labels or len(classes) != model.spec.num_classes:
        return model
    return replace(model, spec=model.spec.model_copy(update={"labels": classes}))


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
