"""The teacher that a recipe names beside the unpruned model (`tune.teacher`)."""

from __future__ import annotations

from edgeprune.errors import RecipeError
from edgeprune.models.load import load
from edgeprune.models.trust import is_timm
from edgeprune.stages.context import Context
from edgeprune.training.losses import OtherTeacher


def other_teacher(context: Context) -> OtherTeacher | None:
    """The teacher that a recipe names beside the unpruned model.

    Raises:
        RecipeError: it is for another task, reads other images or tells other classes apart.
    """
    settings, model = context.recipe.tune, context.model("load")
    if settings.teacher is None:
        return None
    if context.task.target != "class":
        raise RecipeError(
            f"a teacher of its own gives classes, and the task {context.task.name} has none",
            where="tune.teacher",
            hint="leave tune.teacher out: the unpruned model teaches any task (tune.distillation)",
        )
    context.require_teacher(settings.teacher)
    prepared = model.spec.preprocessing  # a factory does not say what it reads: what the model does
    teacher = load(
        settings.teacher,
        pretrained=settings.teacher_checkpoint is None and is_timm(settings.teacher),
        checkpoint=settings.teacher_checkpoint,
        num_classes=model.spec.num_classes,
        input_size=None if model.spec.inputs else model.spec.input_size,
        inputs={one.name: one.shape for one in model.spec.inputs} or None,
        mean=None if is_timm(settings.teacher) or model.spec.inputs else prepared.mean,
        std=None if is_timm(settings.teacher) or model.spec.inputs else prepared.std,
    )
    return OtherTeacher(teacher, model)
