"""A model written to files as it is, without a recipe or a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.artifacts.export import Exported, Meaning, export_each
from edgeprune.artifacts.plugins import find_exporter, require_toolkit
from edgeprune.artifacts.toolkits import toolkits
from edgeprune.data.open import open_data, with_preprocessing
from edgeprune.data.record import RECORD
from edgeprune.data.split import Splits
from edgeprune.errors import UsageError
from edgeprune.models.answers import PLAIN, form_of
from edgeprune.models.copies import check_copies
from edgeprune.models.load import load_from
from edgeprune.models.spec import Model
from edgeprune.models.trust import remember_recipe
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Recipe, TaskSection
from edgeprune.recipe_file import parse_recipe, resolve_paths
from edgeprune.runs import write_atomic
from edgeprune.stages.export import REFERENCE_IMAGES
from edgeprune.stages.load import with_labels
from edgeprune.stages.merge import folded
from edgeprune.stages.quantize import calibration_images, int8_formats
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.registry import task_of
from edgeprune.verify.alarm import refuse_random
from edgeprune.verify.known import check_known

UNNAMED = "none"  # a data source that nobody opens


def export_model(
    model: str,
    out: Path,
    *,
    formats: Sequence[str] | None = None,
    int8: bool | None = None,
    data: str | None = None,
    task: TaskSection | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
    **options: Any,
) -> Exported:
    """Write a model as it is to files of several formats, each with its manifest, beside one reference.

    With `data` its accuracy is looked at first, as when a run is loaded; calibration images and reference inputs are
    taken from them, and which images those are is written beside the files (`data.jsonl`). Without, the reference
    inputs are random numbers.

    Args:
        model: a timm name, `package.module:factory` or `file.py:factory`.
        out: a folder that is not there yet, or is empty.
        formats: all that ship with EdgePrune, unless said.
        int8: whether formats that can have one get an int8 file; where data are named, unless said.
        data: as [data] `source` in a recipe.
        task: what the answers mean; a classifier's unless given.
        seed: of the division of the data, and of random inputs.
        options: those of the recipe's [model].

    Raises:
        UsageError: int8 is asked for without data; or the folder is not empty.
        RecipeError: an option or a format is wrong.
        ToolkitMissing: of a format.
        ModelError, DataError: as when a run is loaded.
        ConversionError: no file at all could be written.
    """
    if int8 and data is None:
        raise UsageError(
            "int8 files are quantized with calibration images, and no data are named",
            where="--int8",
            hint="name some (--data photos/), or write float files only (--no-int8)",
        )
    wanted = data is not None if int8 is None else int8
    recipe = _recipe(model, data, formats, task or TaskSection(), int8=wanted, seed=seed, options=options)
    remember_recipe(recipe)
    for name in recipe.export.formats:
        require_toolkit(find_exporter(name))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("the folder is not empty", where=str(out), hint="choose another --out, so that no files mix")
    loaded, splits = _loaded(recipe, data, progress)
    merged, _ = folded(loaded, seed=seed)
    if splits is None:
        reference, calibration = merged.example_input(REFERENCE_IMAGES, seed=seed), None
        progress.say("no data are named: the reference inputs are random numbers")
    else:
        reference, _ = next(iter(splits.test.take(REFERENCE_IMAGES).batches(REFERENCE_IMAGES)))
        calibration = calibration_images(splits) if recipe.quantize.enabled else None
    with toolkits():
        done = export_each(
            merged,
            out,
            formats=recipe.export.formats,
            int8=int8_formats(recipe),
            calibration=calibration,
            reference_input=reference,
            meaning=Meaning(recipe.task, not merged.spec.inputs and (splits is None or splits.test.has_pixels)),
            progress=progress,
        )
    if splits is not None and splits.record is not None:
        write_atomic(out / RECORD, splits.record.to_bytes())
    return done


def _recipe(
    model: str,
    data: str | None,
    formats: Sequence[str] | None,
    task: TaskSection,
    *,
    int8: bool,
    seed: int,
    options: Mapping[str, Any],
) -> Recipe:
    given = {name: value for name, value in options.items() if value is not None}
    tree: dict[str, Any] = {
        "seed": seed,
        "model": {**given, "factory" if ":" in model else "name": model},
        "data": {"source": data or UNNAMED},
        "task": task.model_dump(),
        "prune": {"enabled": False},
        "quantize": {"enabled": int8},
        "export": {"formats": tuple(formats)} if formats else {},
    }
    return resolve_paths(parse_recipe(tree, where="options"), Path.cwd())


def _loaded(recipe: Recipe, data: str | None, progress: Progress) -> tuple[Model, Splits | None]:
    """The model, with the data where there are any, each looked at as when a run is loaded."""
    model = load_from(recipe.model)
    model = replace(model, spec=with_preprocessing(model.spec, recipe.data))
    refuse_random(recipe.model)
    for words in (*model.said, *check_copies(model, trains=False)):
        progress.say(words)
    if data is None:
        return model, None
    task = task_of(recipe.task)
    splits = open_data(recipe.data, model.spec, seed=recipe.seed, kind=task.target, progress=progress)
    model = with_labels(model, splits)
    objective = Objective.of(task, recipe.task, form_of(model.module) or PLAIN)
    check_known(model, splits.test, recipe.model, objective, progress=progress)
    return model, splits
