"""One training for `training_loop.py`, by the code that is found first: it uses nothing that is new.

python benchmarks/one_training.py prune RECIPE.json RUN
python benchmarks/one_training.py train RUN SEED EPOCHS IMAGES OUT.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import lock, open_run, write_atomic
from edgeprune.stages.context import Context
from edgeprune.training.accuracy import top1
from edgeprune.training.loop import tune


def prune(recipe: Path, run: Path) -> None:
    """The model that either code re-trains."""
    with lock(run):
        made = prepare_run(parse_recipe(json.loads(recipe.read_text())), run, resume=True)
        context = Context(made, Silent(), trust=True)
        for stage in ("load", "probe", "prune"):
            do_stage(context, stage)


def train(run: Path, seed: int, epochs: int, images: int, out: Path) -> None:
    """Its accuracy on the test images, and how fast it was."""
    context = Context(open_run(run), Silent(), trust=True)
    splits, settings = context.splits, context.recipe.tune.model_copy(update={"epochs": epochs})
    few, student, teacher = splits.train.take(images), context.model("prune").module, context.model("load").module
    start = time.perf_counter()
    task: dict[str, Any] = {"objective": context.objective} if hasattr(context, "objective") else {}  # new
    result = tune(student, teacher, few, splits.validation, settings, seed=seed, snapshots=None, **task)
    whole, trained = time.perf_counter() - start, sum(record.seconds for record in result.history)
    row = {
        "top1": top1(result.module, splits.test) if splits.test.classes else None,
        "images_per_s": len(few) * epochs / trained,
        "epochs_s": trained,
        "each_s": [record.seconds for record in result.history],
        "whole_s": whole,
        "validation": [record.validation for record in result.history],
        "kept": getattr(result, "kept", epochs),
    }
    write_atomic(out, json.dumps(row, indent=1).encode())


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if sys.argv[1] == "prune":
        prune(*map(Path, sys.argv[2:]))
    else:
        run, *numbers, out = sys.argv[2:]
        train(Path(run), *map(int, numbers), Path(out))
