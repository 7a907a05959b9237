"""The front: one recipe at several targets, each a run of its own, side by side on one page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from edgeprune.artifacts.toolkits import toolkits
from edgeprune.devices.discovery import refuse_profile
from edgeprune.errors import EdgePruneError, TargetError, UsageError
from edgeprune.pipeline import Outcome, is_finished, prepare_run
from edgeprune.pipeline import run as run_pipeline
from edgeprune.progress import Progress
from edgeprune.recipe import Recipe, Target
from edgeprune.report.data import read_report
from edgeprune.report.page import render
from edgeprune.runs import Run, lock, write_atomic
from edgeprune.stages.stage import PIPELINE

PAGE = "front.html"


@dataclass(frozen=True)
class FrontPoint:
    """One target: its run's outcome, or why the target was refused."""

    target: str
    folder: Path
    outcome: Outcome | None
    refused: str


def front(
    recipe: Recipe, targets: Sequence[str], folder: Path, *, resume: bool = False, progress: Progress | None = None
) -> tuple[FrontPoint, ...]:
    """Do the recipe's whole job for each target, in `folder`/TARGET, and write `folder`/front.html.

    The model is loaded and probed once (a counted target probes no layers: name a latency target first). A target that
    cannot be reached is noted, and the others go on.

    Raises:
        UsageError: fewer than two targets, or one twice; the recipe prunes nothing; or its device is a device profile.
        RecipeError: a target cannot be read.
        RunError: a run is there and `resume` was not given.
        EdgePruneError: what a stage says; what was finished before is kept.
    """
    parsed = {target.replace(" ", ""): Target.parse(target) for target in targets}
    if len(parsed) < 2 or len({(t.value, t.unit) for t in parsed.values()}) < len(targets):
        raise UsageError(
            f"a front needs different targets, got {', '.join(targets) or 'none'}",
            hint="give --target twice or more, as --target 0.7x --target 0.5x",
        )
    if not recipe.prune.enabled:
        raise UsageError(
            "a front is of what is pruned, and the recipe says prune.enabled = false",
            where="prune.enabled",
            hint="leave it out; the target 1x shows the unpruned model among the others",
        )
    refuse_profile(recipe.device.id)
    points: list[FrontPoint] = []
    runs: list[Run] = []
    with toolkits():  # the same for all targets
        for name in parsed:
            settings = recipe.with_target(name)
            if progress is not None:
                progress.say(f"target {name}")
            with lock(folder / name):
                opened = prepare_run(settings, folder / name, resume=resume)
                _take_over(runs, opened)
            try:
                outcome = run_pipeline(settings, opened.folder, resume=True, progress=progress)
                points.append(FrontPoint(name, opened.folder, outcome, ""))
            except TargetError as error:
                points.append(FrontPoint(name, opened.folder, None, str(error)))
            runs.append(opened)
    if all(point.outcome is None for point in points):
        raise TargetError(f"no target can be reached: {points[0].refused}", where=str(folder))
    reports = [read_report(point.folder / "report" / "report.json") for point in points if point.outcome]
    write_atomic(folder / PAGE, render(reports).encode())
    return tuple(points)


def _take_over(runs: Sequence[Run], opened: Run) -> None:
    """Copy the stages that runs share from one that has them, unless this one has."""
    for stage in _shared(opened.recipe):
        source = next((run for run in runs if is_finished(run, stage)), None)
        if source is None or is_finished(opened, stage):
            continue
        place = opened.clear(
            stage, *(later.name for later in PIPELINE.after(stage))
        )  # what was made from another one goes, too
        part = opened.folder / f".part-{stage}"  # removed when the run is opened again, should we be killed
        try:
            shutil.copytree(source.stage_folder(stage), part)
            place.rmdir()
            part.rename(place)
        except OSError as error:
            raise EdgePruneError(
                f"cannot copy the stage `{stage}`: {error}",
                where=str(opened.folder),
                hint="if the disk is full, free some space; then go on with --resume",
            ) from error


def _shared(recipe: Recipe) -> tuple[str, ...]:
    """The stages before those that depend on the target."""
    stages = takewhile(lambda stage: "prune" not in stage.settings(recipe), PIPELINE)
    return tuple(stage.name for stage in stages)
