"""The stages in order on a run folder; what is finished is not done again."""

from __future__ import annotations

import importlib.metadata
import platform
import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgeprune.artifacts.toolkits import toolkits
from edgeprune.checksum import file_sha256
from edgeprune.data.folders import NoData
from edgeprune.data.open import changed_since
from edgeprune.data.record import RECORD, read_record
from edgeprune.devices.discovery import refuse_profile
from edgeprune.errors import EdgePruneError, ModelError, RunError, is_of_a_path
from edgeprune.launch import require_alone
from edgeprune.models.trust import remember_recipe
from edgeprune.progress import Progress, Silent
from edgeprune.recipe import Recipe
from edgeprune.runs import Run, RunInfo, create_run, lock, open_run, settings_hash, write_atomic
from edgeprune.scratch import place_of
from edgeprune.stages.context import Context
from edgeprune.stages.stage import PIPELINE, Pipeline
from edgeprune.verify.verdict import Verdict

_PACKAGES = (
    "edgeprune",
    "torch",
    "timm",
    "accelerate",
    "ai-edge-litert",
    "litert-torch",
    "ai-edge-quantizer",
    "executorch",
)
TOGETHER = "tune"  # the stage that several processes do
_MORE_PACKAGES = ("accelerate", "torchao", "coremltools", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Outcome:
    """A finished run."""

    folder: Path
    verdict: Verdict
    page: Path


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    pipeline: Pipeline = PIPELINE,
) -> Outcome:
    """Do the whole job; with `resume`, go on from the last finished stage (in training: epoch).

    A stage whose settings in the recipe have changed since is done again, and all that follow it. `pipeline`: with
    stages of one's own, where it is not the usual one.

    Raises:
        UsageError: the recipe's device is a device profile, on which nothing can be verified.
        RunError: the folder holds something else, is corrupt, or is in use.
        EdgePruneError: what a stage says (finished stages are kept).
    """
    refuse_profile(recipe.device.id)
    require_alone("a whole run")
    with lock(folder), toolkits():
        opened = prepare_run(recipe, folder, resume=resume)
        for stage in pipeline:
            if stage.needs is not None and not is_finished(opened, stage.name, pipeline=pipeline):
                stage.check(recipe)
        # The recipe is given, not read in the folder: it is trusted.
        context = Context(opened, progress or Silent(), trust=True, pipeline=pipeline)
        for stage in pipeline:
            do_stage(context, stage.name)
        verdict = context.read("verify", "verdict.json", Verdict)
        return Outcome(folder, verdict, context.file("report", "report.html"))


def prepare_run(recipe: Recipe, folder: Path, *, resume: bool) -> Run:
    """Create the run folder, or open the one there with this recipe when resuming.

    A run that has not finished a single stage holds nothing: it is begun again without `resume` too. What the recipe
    names is named by the user: later commands on this folder run it without being told to trust it.

    Raises:
        RunError: the folder holds something else, or a run that is not to be resumed.
    """
    remember_recipe(recipe)
    if not (folder / "run.json").exists():
        return create_run(folder, recipe, versions(), _command())
    opened = open_run(folder)
    if not resume and any(opened.record(stage) for stage in PIPELINE.names):
        return create_run(folder, recipe, versions(), _command())  # says that a run is here
    for part in folder.glob(".part-*"):  # the process that wrote it was killed: we hold its lock now
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    return opened if opened.recipe == recipe else change_recipe(opened, recipe)


def change_recipe(opened: Run, recipe: Recipe) -> Run:
    """Give a run another recipe; the stages that depend on what changed are no longer finished."""
    info = RunInfo(recipe=recipe, versions=versions(), command=_command())
    write_atomic(opened.folder / "run.json", info.model_dump_json(indent=1).encode())
    return Run(opened.folder, info)


@dataclass(frozen=True)
class DataState:
    """A run's data as they are now: their hash, and what became of them since it was loaded, in words."""

    sha256: str
    changed: str


def data_now(run: Run) -> DataState:
    """How a run's data are now. Where they were taken away since, they are what they were.

    Raises:
        DataError: they are no data for a run any more.
    """
    path = run.stage_folder("load") / RECORD
    if not path.exists():
        unknown = run.record("load") is not None  # by a version that did not record them
        return DataState("unrecorded", "it is not recorded what they were") if unknown else DataState("", "")
    record = read_record(path)
    try:
        changed = changed_since(run.recipe.data, record)
    except NoData:
        changed = ""
    return DataState("changed" if changed else record.sha256, changed)


def is_finished(run: Run, stage: str, data: DataState | None = None, *, pipeline: Pipeline = PIPELINE) -> bool:
    """Whether a stage is finished with the recipe and the data as they are now (`data`, where that is known)."""
    record = run.record(stage)
    return record is not None and record.settings == _settings(run, stage, (data or data_now(run)).sha256, pipeline)


def is_made(run: Run, stage: str) -> bool:
    """Whether a stage is finished with the recipe as it is now, whatever became of the data since."""
    record = run.record(stage)
    return record is not None and record.settings == _settings(run, stage, _recorded_data(run))


def require_earlier(run: Run, stage: str, data: DataState | None = None, *, pipeline: Pipeline = PIPELINE) -> None:
    """Check that the stages before this one are finished with the recipe and the data as they are now.

    Raises:
        RunError: one is not; names the command that does it.
    """
    data = data or data_now(run)
    before = pipeline.before(stage)
    if data.changed and before:
        raise RunError(
            f"the data changed since this run was loaded: {data.changed}",
            where=str(run.folder),
            hint="run `edgeprune run RECIPE --out ... --resume` (or the same `prune` again): all is done again with "
            "them; or bring them back as they were",
        )
    for earlier in before:
        if not is_finished(run, earlier.name, data, pipeline=pipeline):
            raise RunError(
                f"`{stage}` needs the stage `{earlier.name}`, which is not finished",
                where=str(run.folder),
                hint=f"run `edgeprune {earlier.command(run.folder)}` or `edgeprune run ... --resume` first",
            )


def do_stage(context: Context, name: str) -> None:
    """Do a stage unless it is finished.

    Raises:
        RunError: a stage before it is not finished.
    """
    if name != TOGETHER:
        require_alone(f"the stage `{name}`")
    stage, data = context.pipeline.stage(name), data_now(context.run)
    if is_finished(context.run, name, data, pipeline=context.pipeline):
        return
    require_earlier(context.run, name, data, pipeline=context.pipeline)
    if stage.runs_code:
        context.require_trust()
    context.progress.stage(name)
    if not data.changed and context.run.record(name) is not None:
        context.progress.say(f"`{name}` was finished with other settings than the recipe has now: it is done again")
    if data.changed:
        context.progress.say(f"the data changed since this run was loaded: {data.changed}; all is done again with them")
    folder = context.run.clear(name, *(later.name for later in context.pipeline.after(name)))
    context.forget_from(name)
    _seed(context.recipe.seed)
    started = time.monotonic()
    try:
        result = stage.run(context, folder)
        seconds = time.monotonic() - started
        settings = _settings(context.run, name, _recorded_data(context.run), context.pipeline)
        context.run.finish(name, settings=settings, seconds=seconds, result=result)
        if stage.snapshots is not None:
            shutil.rmtree(context.run.folder / stage.snapshot_folder, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        denied = is_of_a_path(error) and not isinstance(error, FileNotFoundError | FileExistsError)
        raise (RunError if denied else EdgePruneError)(
            f"the stage `{name}` could not write or read a file: {error}",
            where=place_of(error, context.run.folder),
            hint="check its rights, and the disk (if it is full, free some space); then go on with --resume (finished "
            "stages are kept)",
        ) from error
    except SystemExit as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ModelError(
            f"the model's own code ended the program: sys.exit({error.code!r})",
            where=context.recipe.model.source,
            hint="let its forward raise an error instead",
        ) from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # nothing half-written is left behind
        raise


def _settings(run: Run, stage: str, data: str, pipeline: Pipeline = PIPELINE) -> str:
    """What a stage and those before it read: sections of the recipe, the content of the checkpoint and of the data."""
    settings = settings_hash(run.recipe, pipeline.settings(stage, run.recipe))
    contents = (_checkpoint_sha256(run), data)
    return "-".join([settings, *(content[:16] for content in contents if content)])


def _recorded_data(run: Run) -> str:
    """The hash of the data that the run was loaded with; none where that was not recorded."""
    path = run.stage_folder("load") / RECORD
    return read_record(path).sha256 if path.exists() else ""


def _checkpoint_sha256(run: Run) -> str:
    """Of the checkpoint as it is now; one that was taken away since is the one that was loaded."""
    path = run.recipe.model.checkpoint
    if path is None:
        return ""
    if path.is_file():
        return file_sha256(path)
    loaded = run.record("load")
    return str(loaded.result.get("checkpoint_sha256", "")) if loaded else ""


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _command() -> str:
    """How this process was started, without where the program lies."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """What made a run: packages, Python and the machine's platform."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in (*_PACKAGES, *_MORE_PACKAGES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
