"""What the stages that train write: their epochs, and what an interrupted run needs to go on. That lies outside of the
stage's own folder, which is emptied whenever the stage begins anew, and is removed when the stage is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from edgeprune.recipe import Recipe, TuneSection
from edgeprune.resume import Resumption
from edgeprune.runs import StageRecord, read_as, settings_hash, write_atomic
from edgeprune.stages.context import Context
from edgeprune.stages.stage import WEIGHTS
from edgeprune.training.snapshot import EpochRecord

HISTORY = "history.json"
_HISTORY = TypeAdapter(tuple[EpochRecord, ...])


def snapshots_of(context: Context, name: str, *, recipe: Recipe | None = None) -> Path:
    """The folder for a stage's snapshots that go with these settings and with what the stage before it made.

    Args:
        recipe: with what counts of the run's; all of it without.
    """
    stage, before = context.pipeline.stage(name), context.pipeline.before(name)[-1]
    record, loaded = context.run.record(before.name), context.run.record("load")
    weights = str(loaded.result.get("checkpoint_sha256", "")) if loaded else ""
    data = str(loaded.result.get("data", {}).get("sha256", "")) if loaded else ""
    settings = settings_hash(recipe or context.recipe, stage.snapshots or ())
    depends = (settings, _made(record)[:12] if record else "none", weights[:12], data[:12])
    return Resumption(context.run.folder / stage.snapshot_folder, *depends).folder


def _made(record: StageRecord) -> str:
    """The hash of what a stage made: of the weights, where it leaves a model; else of all its files."""
    hashes = {file.path: file.sha256 for file in record.files}
    return hashes.get(WEIGHTS) or hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def choosing_of(context: Context) -> Path:
    """The folder for what an interrupted choice goes on with. Choices do not see how the model is trained then, but for
    how images are augmented and with what precision they are judged."""
    tune = context.recipe.tune
    seen = TuneSection(augment=tune.augment, precision=tune.precision)
    return snapshots_of(context, "prune", recipe=context.recipe.model_copy(update={"tune": seen}))


def write_history(folder: Path, history: Sequence[EpochRecord]) -> None:
    """Write a stage's epochs into its folder."""
    write_atomic(folder / HISTORY, json.dumps([record.model_dump() for record in history], indent=1).encode())


def read_history(file: Path) -> tuple[EpochRecord, ...]:
    """What `write_history` wrote.

    Raises:
        RunError: it is no such file.
    """
    return read_as(file, _HISTORY)
