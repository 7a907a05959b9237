"""The library's front: the same verbs as the command line, on the same run folders.

import edgeprune

run = edgeprune.prune("resnet18", target="0.5x", data="photos/", pretrained=True, out="runs/a")
edgeprune.tune(run, epochs=10)
edgeprune.merge(run); edgeprune.quantize(run); edgeprune.export(run, formats=("tflite",))
verdict = edgeprune.verify(run)
model = edgeprune.load("runs/a")     # an ordinary nn.Module in model.module
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.artifacts.export import Exported
from edgeprune.devices.discovery import open_device
from edgeprune.devices.jobs import runtime_build
from edgeprune.errors import RunError, UsageError
from edgeprune.file_check import FileCheck
from edgeprune.file_check import verify_file as check_file
from edgeprune.installed import require_runtime
from edgeprune.latency.compare import Comparison
from edgeprune.latency.compare import compare as compare_files
from edgeprune.latency.model_probe import Probed, probe_model
from edgeprune.latency.predictor import Prediction, Predictor, predictor_of
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.latency.typical import is_typical, open_typical
from edgeprune.model_export import export_model as write_model
from edgeprune.models.load import load as load_source
from edgeprune.models.spec import Model
from edgeprune.models.trust import remember_device
from edgeprune.pipeline import Outcome, is_made
from edgeprune.pipeline import run as run_pipeline
from edgeprune.progress import Progress, Silent
from edgeprune.recipe import Precision, Recipe, Runtime, TaskSection
from edgeprune.recipe_file import read_recipe
from edgeprune.runs import Run, StageRecord, open_run, read_as
from edgeprune.sensitivities import ZEROS, Sensitivity
from edgeprune.sensitivities import sensitivity as ask_sensitivity
from edgeprune.several_targets import FrontPoint
from edgeprune.several_targets import front as run_front
from edgeprune.space.apply import check_base, subnet_of
from edgeprune.space.find import find_structure
from edgeprune.space.plan import Plan
from edgeprune.space.subnet import WHOLE
from edgeprune.space.units import Structure
from edgeprune.stages.context import Context
from edgeprune.stages.stage import PIPELINE, Pipeline
from edgeprune.target_file import wrong_precision
from edgeprune.verbs import begin, do, folder_of
from edgeprune.verify.explain import Explanation
from edgeprune.verify.explain import explain as explain_file
from edgeprune.verify.verdict import Verdict


def load(source: str | Path, *, stage: str | None = None, trust: bool = False, **options: Any) -> Model:
    """Load a model: a timm name, `package.module:factory`, `file.py:factory`, or a run folder.

    Args:
        source: what to load; a run folder gives the model of its last finished stage, in eval mode.
        stage: of a run folder, whose model (one that leaves a model: load, prune, tune or merge).
        trust: of a run folder: run the factory that it names, though you have named it nowhere yourself.
        options: for timm names and factories, those of `edgeprune.models.load.load` (`pretrained`, `checkpoint`,
            `arguments`, `num_classes`, `input_size`, `inputs`, `mean`, `std`, `labels`).

    Raises:
        ModelError: there is no such model, or its weights don't fit.
        RunError: the run folder is corrupt, holds no model yet, its recipe was changed since the model was made, or it
            names code that you have not named.
    """
    if not (Path(source) / "run.json").exists():
        if stage is not None:
            raise UsageError("a stage is of a run, and this is no run folder", where=str(source))
        return load_source(str(source), **options)
    if options:
        raise UsageError(
            f"a run folder takes no options, got {', '.join(options)}",
            where=str(source),
            hint="it remembers how its model was made",
        )
    run = open_run(Path(source))
    return Context(run, Silent(), trust=trust).model(_stage_to_load(run, stage))


def _stage_to_load(run: Run, asked: str | None) -> str:
    models = tuple(reversed(PIPELINE.models().values()))
    if asked is not None and asked not in models:
        raise UsageError(f"`{asked}` makes no model", where=str(run.folder), hint=f"one of {', '.join(models)} does")
    stage = next((stage for stage in models if asked in (None, stage) and run.record(stage)), None)
    if stage is None:
        none = f"the stage `{asked}` of this run is not finished" if asked else "no stage of this run is finished"
        raise RunError(none, where=str(run.folder), hint="go on with it: --resume")
    if is_made(run, stage):
        return stage
    earlier = next((stage for stage in models if is_made(run, stage)), None)
    raise RunError(
        f"`{stage}` was done with other settings than the recipe has now",
        where=str(run.folder),
        hint="go on with the run: --resume" + (f', or load an earlier model: stage="{earlier}"' if earlier else ""),
    )


def run(
    recipe: Recipe | Path | str,
    out: Path | str,
    *,
    device: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    pipeline: Pipeline = PIPELINE,
) -> Outcome:
    """Do the whole job of a recipe; see `edgeprune.pipeline.run`."""
    settings = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe))
    if device is not None:
        settings = settings.model_copy(update={"device": settings.device.model_copy(update={"id": device})})
    return run_pipeline(settings, Path(out), resume=resume, progress=progress, pipeline=pipeline)


def front(
    recipe: Recipe | Path | str,
    targets: Sequence[str],
    out: Path | str,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> tuple[FrontPoint, ...]:
    """Do the whole job of a recipe for several targets; see `edgeprune.several_targets.front`."""
    settings = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe))
    return run_front(settings, targets, Path(out), resume=resume, progress=progress)


def probe(
    model: Model,
    *,
    device: str = "local",
    runtime: Runtime = "litert",
    threads: int = 1,
    protocol: str = "quick",
    granularity: int | None = None,
    precision: Precision = "fp32",
    progress: Progress | None = None,
) -> Probed:
    """Measure a model on a device, and fill the user's latency table with what its pruned forms take there.

    `edgeprune.predict` answers from the table then, and `edgeprune.prune` measures what it lacks only.

    Args:
        model: as `edgeprune.load` gives it.
        protocol: of the whole model: quick, standard or mlperf.
        granularity: widths in steps of this; None for the device profile's.
        precision: of the files, fp32 or int8. int8 files are quantized with seeded random inputs, on whose values a
            latency hangs little.

    Raises:
        UsageError: there is no such runtime or protocol, or its files of this precision cannot be probed.
        DeviceError: the device is unavailable, in use or was lost; what was measured before is kept.
    """
    _require(runtime, precision)
    return probe_model(
        model,
        open_device(device),
        LatencyTable(),
        runtime=runtime,
        threads=threads,
        protocol=protocol,
        granularity=granularity,
        precision=precision,
        progress=progress or Silent(),
    )


def prune(
    model: str, *, target: str, data: str, out: Path | str, progress: Progress | None = None, **options: Any
) -> Run:
    """Prune a model to a target.

    Args:
        model: a timm name, `package.module:factory` or `file.py:factory`.
        target: `0.5x`, `8ms`, `150MMACs`, `1.2Mparams` or `900KB`.
        data: a folder of class folders, `digits`, `npz:FILE`, `csv:FILE`, `coco:FILE.json` or `timm:NAME`.
        out: the run folder; a run of the same settings that is there goes on.
        options: `device`, `runtime`, `threads`, `seed`, `task` (its name), and what the recipe's [prune] and [model]
            sections take.

    Raises:
        TargetError: the target cannot be met (the message says the fastest reachable).
        DeviceError: the device is unavailable or too noisy.
    """
    return begin(model, data, Path(out), progress, target=target, **options)


def tune(
    run: Run | Path | str, *, progress: Progress | None = None, trust: bool = False, **settings: Any
) -> StageRecord:
    """Re-train the pruned model with distillation; settings as in the recipe's [tune] section.

    Args:
        trust: here and in the next verbs: run the factory that the run folder names, though you have named it nowhere
            yourself (in a recipe, or to `load` or `prune`).
    """
    return do(run, "tune", progress=progress, trust=trust, **settings)


def merge(run: Run | Path | str, *, progress: Progress | None = None, trust: bool = False) -> StageRecord:
    """Fold batch norms, and prove that the answers stay the same."""
    return do(run, "merge", progress=progress, trust=trust)


def quantize(run: Run | Path | str, *, progress: Progress | None = None, trust: bool = False) -> StageRecord:
    """Choose calibration images and int8 schemes."""
    return do(run, "quantize", progress=progress, trust=trust, enabled=True)


def export(
    run: Run | Path | str,
    *,
    formats: Sequence[str] | None = None,
    progress: Progress | None = None,
    trust: bool = False,
) -> StageRecord:
    """Write the files, each in a child process, each with its manifest."""
    return do(run, "export", progress=progress, trust=trust, formats=tuple(formats) if formats else None)


def export_model(
    model: str,
    out: Path | str,
    *,
    formats: Sequence[str] | None = None,
    int8: bool | None = None,
    data: str | None = None,
    task: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Exported:
    """Write a model as it is to files, without a recipe or a run; see `edgeprune.model_export.export_model`."""
    return write_model(
        model,
        Path(out),
        formats=formats,
        int8=int8,
        data=data,
        task=TaskSection() if task is None else TaskSection(name=task),
        seed=seed,
        progress=progress or Silent(),
        **options,
    )


def verify_file(
    file: Path | str, *, model: Model | None = None, progress: Progress | None = None, **options: Any
) -> FileCheck:
    """Hold one exported file to its manifest, without a run; see `edgeprune.file_check.verify_file`."""
    return check_file(Path(file), model=model, progress=progress or Silent(), **options)


def verify(
    run: Run | Path | str, *, device: str | None = None, progress: Progress | None = None, trust: bool = False
) -> Verdict:
    """Run every file on the device and hold its figures against the recipe's gates.

    A run that is verified gives its verdict again, its files checked and none of its code run.

    Raises:
        DeviceError: there is no such device, or it is unavailable.
        RunError: the device is not the run's: a latency target means the device it was measured on.
    """
    if device is not None:
        own = open_run(folder_of(run)).recipe.device.id
        if open_device(device).id != own:
            raise RunError(
                f"this run was pruned for the device {own!r}",
                where=str(folder_of(run)),
                hint=f"prune for {device!r} into another run folder",
            )
        remember_device(own)
    record = folder_of(run) / "verify" / "stage.json"
    before = record.stat().st_mtime_ns if record.exists() else None
    do(run, "verify", progress=progress, trust=trust)
    if progress is not None and record.stat().st_mtime_ns == before:
        progress.say("verified before: the files are those of its records, and nothing was run again")
    return read_as(folder_of(run) / "verify" / "verdict.json", Verdict)


def compare(
    a: Path | str,
    b: Path | str,
    *,
    device: str = "local",
    margin: float = 0.01,
    budget_s: float = 120.0,
    threads: int = 1,
    seed: int = 0,
) -> Comparison:
    """Measure two exported files in turn until it is sure whether B is faster, slower, or no different.

    See `edgeprune.latency.compare.compare`.
    """
    return compare_files(
        open_device(device), Path(a), Path(b), margin=margin, budget_s=budget_s, threads=threads, seed=seed
    )


def predict(
    model: Model,
    plan: Plan | None = None,
    *,
    device: str = "local",
    runtime: Runtime = "litert",
    threads: int = 1,
    precision: Precision = "fp32",
) -> Prediction:
    """Latency of a model pruned by a plan, from the user's latency table: nothing is built and nothing measured.

    With a device such as `profile:lab-cortex-a76` it comes from the typical tables of that kind of device.

    Args:
        model: the unpruned model, which was probed on this device before (`edgeprune probe`).
        plan: what is removed; None for the model as it is.
        precision: of the file whose latency is meant.

    Raises:
        ModelError: the plan was made for another model.
        UsageError: there is no such runtime or precision, or the table has no whole run of this model on this device
            with this build, number of threads and precision.
    """
    _require(runtime, precision)
    if plan is not None:
        check_base(model.module, plan)
    structure = find_structure(model.module, model.example_input())
    predictor = _predictor(structure, device, runtime, threads, precision)
    subnet = WHOLE if plan is None else subnet_of(plan, structure)
    return predictor.predict(subnet.kept(structure), subnet.layers_gone(structure))


def _require(runtime: Runtime, precision: Precision) -> None:
    """Check that files of a precision can be pruned for in a runtime.

    Raises:
        UsageError: they cannot.
    """
    require_runtime(runtime)
    if error := wrong_precision(runtime, precision):
        raise error


def _predictor(structure: Structure, device: str, runtime: Runtime, threads: int, precision: Precision) -> Predictor:
    if is_typical(device):
        typical, (layers, sizes) = open_typical(device), (structure.layers, structure.sizes)
        return typical.predictor(layers, sizes, runtime=runtime, threads=threads, precision=precision)[0]
    opened = open_device(device)
    setting = Setting(opened.facts().fingerprint, runtime_build(opened, runtime).id, threads, precision)
    return predictor_of(LatencyTable(), setting, structure.layers, structure.sizes)


def sensitivity(
    recipe: Recipe | Path | str,
    *,
    zeros: Sequence[float] = ZEROS,
    images: int = 500,
    progress: Progress | None = None,
) -> Sensitivity:
    """How many zeros each type of layer bears; see `edgeprune.sensitivities.sensitivity`."""
    settings = recipe if isinstance(recipe, Recipe) else read_recipe(Path(recipe))
    return ask_sensitivity(settings, zeros=zeros, images=images, progress=progress)


def explain(file: Path | str, *, device: str, threads: int = 1, limit_db: float | None = None) -> Explanation:
    """Find the first operator of a .tflite file whose output on a device differs from this machine's.

    See `edgeprune.verify.explain.explain`.
    """
    return explain_file(open_device(device), Path(file), threads=threads, limit_db=limit_db)


def write_report(run: Run | Path | str, *, progress: Progress | None = None, trust: bool = False) -> Path:
    """Write the report of a run whose verify stage is finished, unless it is there; returns the page."""
    do(run, "report", progress=progress, trust=trust)
    return folder_of(run) / "report" / "report.html"


# The room `edgeprune.verify` bears the verb's name, and importing it, as this module does, would hide the verb.
vars(sys.modules["edgeprune"])["verify"] = verify
