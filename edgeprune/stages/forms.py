"""What a stage does to a model's form: its modules and their widths, whatever the weights."""

from __future__ import annotations

from edgeprune.models.spec import Model
from edgeprune.reparam.merge import merge
from edgeprune.space.apply import apply_plan
from edgeprune.stages.context import Context


def pruned(context: Context, whole: Model) -> Model:
    return whole.with_module(apply_plan(whole.module, context.plan, whole.example_input()))


def merged(_: Context, tuned: Model) -> Model:
    return tuned.with_module(merge(tuned.module.eval(), tuned.example_input()))
