"""The stages in order on a run folder; what is finished is not done again."""

from __future__ import annotations

import importlib.metadata
import platform
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.artifacts.plugins import exporter_for, find_exporter, require_own_files, require_toolkit
from edgeprune.data.folders import NoData
from edgeprune.data.open import changed_since
from edgeprune.data.record import RECORD, read_record
from edgeprune.devices.discovery import refuse_profile
from edgeprune.devices.store import file_sha256
from edgeprune.errors import EdgePruneError, ModelError, RunError, UsageError, is_of_a_path
from edgeprune.models.trust import remember_recipe
from edgeprune.progress import Progress, Silent
from edgeprune.recipe import Recipe
from edgeprune.recipe_names import require_names
from edgeprune.runs import STAGES, Run, RunInfo, Stage, create_run, lock, open_run, settings_hash, write_atomic
from edgeprune.scratch import place_of
from edgeprune.stages.context import Context
from edgeprune.stages.export import export_stage
from edgeprune.stages.load import load_stage
from edgeprune.stages.merge import merge_stage
from edgeprune.stages.probe import probe_stage
from edgeprune.stages.prune import prune_stage
from edgeprune.stages.quantize import quantize_stage
from edgeprune.stages.report import report_stage
from edgeprune.stages.snapshots import SNAPSHOTS
from edgeprune.stages.tune import tune_stage
from edgeprune.stages.verify import verify_stage
from edgeprune.verify.verdict import Verdict

_FUNCTIONS: dict[Stage, Callable[[Context, Path], dict[str, Any]]] = {
    "load": load_stage,
    "probe": probe_stage,
    "prune": prune_stage,
    "tune": tune_stage,
    "merge": merge_stage,
    "quantize": quantize_stage,
    "export": export_stage,
    "verify": verify_stage,
    "report": report_stage,
}

# The recipe's sections that each stage reads for the first time; a stage depends on its own and all earlier ones.
_READS: dict[Stage, tuple[str, ...]] = {
    "load": ("model", "data"),
    "probe": ("device",),
    "prune": ("prune",),
    "tune": ("sparse", "tune"),
    "merge": (),
    "quantize": ("quantize",),
    "export": ("export",),
    "verify": ("verify",),
    "report": (),
}

_PACKAGES = ("edgeprune", "torch", "timm", "ai-edge-litert", "litert-torch", "ai-edge-quantizer", "executorch")
_MORE_PACKAGES = ("torchao", "coremltools", "onnx", "onnxruntime", "numpy")


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
) -> Outcome:
    """Do the whole job; with `resume`, go on from the last finished stage (in training: epoch).

    A stage whose settings in the recipe have changed since is done again, and all that follow it.

    Raises:
        UsageError: the recipe's device is a device profile, on which nothing can be verified.
        RunError: the folder holds something else, is corrupt, or is in use.
        EdgePruneError: what a stage says (finished stages are kept).
    """
    refuse_profile(recipe.device.id)
    with lock(folder):
        opened = prepare_run(recipe, folder, resume=resume)
        if not is_finished(opened, "export"):
            require_toolkits(recipe)
        context = Context(opened, progress or Silent(), trust=True)  # the recipe is given, not read in the folder
        for stage in STAGES:
            do_stage(context, stage)
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
    if not resume and any(opened.record(stage) for stage in STAGES):
        return create_run(folder, recipe, versions(), _command())  # says that a run is here
    for part in folder.glob(".part-*"):  # the process that wrote it was killed: we hold its lock now
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    return opened if opened.recipe == recipe else change_recipe(opened, recipe)


def require_toolkits(recipe: Recipe) -> None:
    """Check, before hours of work, that every format of the recipe can be exported here.

    Raises:
        RecipeError: no installed package offers a format or the runtime, or `quantize.formats` names one that is not
            to be exported.
        ToolkitMissing: names the packages and what installs them.
        UsageError: `quantize.formats` names one that has no int8 file, or two formats would have one file's name.
    """
    require_names(recipe)
    require_toolkit(exporter_for(recipe.device.runtime))
    exporters = [find_exporter(name) for name in recipe.export.formats]
    for exporter in exporters:
        require_toolkit(exporter)
    require_own_files(exporters)
    for name in recipe.quantize.formats or ():
        if "int8" not in find_exporter(name).precisions:
            raise UsageError(
                f"the format {name} has no int8 file", where="quantize.formats", hint=f"leave {name} out there"
            )


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


def is_finished(run: Run, stage: Stage, data: DataState | None = None) -> bool:
    """Whether a stage is finished with the recipe and the data as they are now (`data`, where that is known)."""
    record = run.record(stage)
    return record is not None and record.settings == _settings(run, stage, (data or data_now(run)).sha256)


def is_made(run: Run, stage: Stage) -> bool:
    """Whether a stage is finished with the recipe as it is now, whatever became of the data since."""
    record = run.record(stage)
    return record is not None and record.settings == _settings(run, stage, _recorded_data(run))


def require_earlier(run: Run, stage: Stage, data: DataState | None = None) -> None:
    """Check that the stages before this one are finished with the recipe and the data as they are now.

    Raises:
        RunError: one is not; names the command that does it.
    """
    data = data or data_now(run)
    if data.changed and stage != "load":
        raise RunError(
            f"the data changed since this run was loaded: {data.changed}",
            where=str(run.folder),
            hint="run `edgeprune run RECIPE --out ... --resume` (or the same `prune` again): all is done again with "
            "them; or bring them back as they were",
        )
    for earlier in STAGES[: STAGES.index(stage)]:
        if not is_finished(run, earlier, data):
            command = f"prune MODEL --target ... --data ... --out {run.folder}"
            if STAGES.index(earlier) > STAGES.index("prune"):
                command = f"{earlier} {run.folder}"
            raise RunError(
                f"`{stage}` needs the stage `{earlier}`, which is not finished",
                where=str(run.folder),
                hint=f"run `edgeprune {command}` or `edgeprune run ... --resume` first",
            )


def do_stage(context: Context, stage: Stage) -> None:
    """Do a stage unless it is finished.

    Raises:
        RunError: a stage before it is not finished.
    """
    data = data_now(context.run)
    if is_finished(context.run, stage, data):
        return
    require_earlier(context.run, stage, data)
    if stage not in ("load", "report"):
        context.require_trust()
    context.progress.stage(stage)
    if data.changed:
        context.progress.say(f"the data changed since this run was loaded: {data.changed}; all is done again with them")
    folder = context.run.clear(stage)
    context.forget_from(stage)
    _seed(context.recipe.seed)
    started = time.monotonic()
    try:
        result = _FUNCTIONS[stage](context, folder)
        seconds = time.monotonic() - started
        settings = _settings(context.run, stage, _recorded_data(context.run))
        context.run.finish(stage, settings=settings, seconds=seconds, result=result)
        if stage in SNAPSHOTS:
            shutil.rmtree(context.run.folder / SNAPSHOTS[stage], ignore_errors=True)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        denied = is_of_a_path(error) and not isinstance(error, FileNotFoundError | FileExistsError)
        raise (RunError if denied else EdgePruneError)(
            f"the stage `{stage}` could not write or read a file: {error}",
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


def _settings(run: Run, stage: Stage, data: str) -> str:
    """What a stage and those before it read: sections of the recipe, the content of the checkpoint and of the data."""
    sections = [name for earlier in STAGES[: STAGES.index(stage) + 1] for name in _READS[earlier]]
    if run.recipe.prune.epochs and "prune" in sections:
        sections.append("tune")  # the epochs of pruning are the first of the same training
    settings = settings_hash(run.recipe, tuple(sections))
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
        state = path.stat()
        return _sha256(path, state.st_mtime_ns, state.st_size)
    loaded = run.record("load")
    return str(loaded.result.get("checkpoint_sha256", "")) if loaded else ""


@lru_cache(maxsize=16)
def _sha256(path: Path, _changed_ns: int, _size: int) -> str:
    return file_sha256(path)


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
