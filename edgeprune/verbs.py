"""One stage of a run at a time: what the verbs `prune`, `tune`, `merge`, ... do on a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeprune.artifacts.toolkits import toolkits
from edgeprune.errors import RunError, UsageError
from edgeprune.launch import is_main, launched
from edgeprune.models.trust import require_data
from edgeprune.pipeline import (
    TOGETHER,
    change_recipe,
    do_stage,
    is_finished,
    prepare_run,
    require_earlier,
)
from edgeprune.progress import Progress, Silent
from edgeprune.recipe import MOVED, PruneSection, Recipe
from edgeprune.recipe_file import parse_recipe, resolve_paths
from edgeprune.recipe_names import recipe_error, target_of_no_file
from edgeprune.runs import Run, StageRecord, lock, open_run, settings_hash
from edgeprune.stages.context import Context
from edgeprune.stages.stage import PIPELINE
from edgeprune.stages.tune import follow_tune
from edgeprune.training.processes import Processes


def begin(model: str, data: str, out: Path, progress: Progress | None, **options: Any) -> Run:
    """The run of a model that is given without a recipe, up to its prune stage; see `edgeprune.prune`."""
    tree: dict[str, Any] = {"model": {}, "device": {}, "prune": {}}
    homes = {"device": ("device", "id"), "runtime": ("device", "runtime"), "threads": ("device", "threads")}
    homes |= {name: ("prune", name) for name in (*PruneSection.model_fields, *MOVED)}
    for name, value in options.items():
        if value is None:
            continue
        if name == "seed":
            tree["seed"] = value
            continue
        if name == "task":
            tree["task"] = {"name": value}
            continue
        section, key = homes.get(name, ("model", name))
        tree[section][key] = value
    tree["model"]["factory" if ":" in model else "name"] = model
    tree["data"] = {"source": data}
    with lock(out), toolkits():
        run = prepare_run(_beside_others(tree, out), out, resume=True)
        context = Context(run, progress or Silent(), trust=True)  # the model is given, not read in the folder
        for stage in PIPELINE.up_to("prune"):
            do_stage(context, stage.name)
    return run


def _beside_others(tree: dict[str, Any], folder: Path) -> Recipe:
    """The recipe of these sections, with those of the later stages as a run that is there has them.

    Raises:
        RunError: the run there is of another model or data set; it is not overwritten.
    """
    recipe = resolve_paths(parse_recipe(tree, where="options"), Path.cwd())
    if not (folder / "run.json").exists():
        return _with_its_file(recipe)
    there = open_run(folder)
    others = there.recipe.model_dump(exclude_unset=True)
    recipe = resolve_paths(parse_recipe({**others, **tree}, where="options"), Path.cwd())
    same = settings_hash(recipe, ("model", "data", "task")) == settings_hash(there.recipe, ("model", "data", "task"))
    if there.record("load") is not None and not same:
        raise RunError(
            "a run of another model, data set or seed is here", where=str(folder), hint="choose another --out"
        )
    return _with_its_file(recipe)


def _with_its_file(recipe: Recipe) -> Recipe:
    """The recipe, whose export writes the file that its latency target is about.

    Raises:
        RecipeError: it does not.
    """
    if found := target_of_no_file(recipe):
        raise recipe_error(found, "options") from found.error
    return recipe


def do(
    run: Run | Path | str, stage: str, *, progress: Progress | None = None, trust: bool = False, **settings: Any
) -> StageRecord:
    """Do one stage of a run, by its name; those before it have to be finished.

    Args:
        settings: go into the recipe's section of the stage's name, where it reads one.
        trust: see `tune`.
    """
    folder = folder_of(run)
    open_run(folder)  # before the lock, which would make the folder
    if launched() > 1 and stage == TOGETHER and not is_main():
        return _follow(folder, trust=trust)
    with lock(folder), toolkits():
        opened = open_run(folder)
        for source in opened.recipe.data.sources if not trust else ():
            require_data(source, folder)  # before they are looked at, to see whether they changed
        recipe = _changed(opened.recipe, stage, settings)
        changed = Run(folder, opened.info.model_copy(update={"recipe": recipe}))
        require_earlier(changed, stage)  # before the recipe is written: a refused command changes nothing
        if recipe != opened.recipe:
            changed = change_recipe(opened, recipe)
        together = launched() > 1 and stage == TOGETHER
        if together and is_finished(changed, stage):
            Processes().from_main(None)  # nothing to train
        do_stage(Context(changed, progress or Silent(), trust=trust), stage)
        record = changed.record(stage)
        assert record is not None  # do_stage has just written it, or raised
        if together:
            Processes().end(record)
        return record


def _follow(folder: Path, *, trust: bool) -> StageRecord:
    """Train with the main process, and give back what it wrote."""
    follow_tune(folder, trust=trust)
    record = Processes().end(None)
    assert isinstance(record, StageRecord)
    return record


def _changed(recipe: Recipe, stage: str, settings: dict[str, Any]) -> Recipe:
    """The recipe with what was given (not None) put into a stage's own section.

    Raises:
        UsageError: it has none.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if not given:
        return recipe
    if stage not in PIPELINE.stage(stage).settings(recipe):
        raise UsageError(f"the stage `{stage}` takes no settings, got {', '.join(given)}")
    tree = recipe.model_dump(exclude_unset=True)
    tree[stage] = {**tree.get(stage, {}), **given}
    return parse_recipe(tree, where=stage)


def folder_of(run: Run | Path | str) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)
