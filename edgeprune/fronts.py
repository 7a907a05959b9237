"""The front: one recipe at several targets, each a run of its own, side by side on one page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import EdgePruneError, TargetError, UsageError
from edgeprune.pipeline import Outcome, is_finished, prepare_run
from edgeprune.pipeline import run as run_pipeline
from edgeprune.progress import Progress
from edgeprune.recipe import Recipe, Target
from edgeprune.report.data import read_report
from edgeprune.report.page import render
from edgeprune.runs import Run, Stage, lock, write_atomic

SHARED: tuple[Stage, ...] = ("load", "probe")  # what does not depend on the target
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

    The model is loaded and probed once. A target that cannot be reached is noted, and the others go on.

    Raises:
        UsageError: fewer than two targets, or one twice.
        RecipeError: a target cannot be read.
        RunError: a run is there and `resume` was not given.
        EdgePruneError: what a stage says; what was finished before is kept.
    """
    names = [str(Target.parse(target)).replace(" ", "") for target in targets]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(
            f"a front needs different targets, got {', '.join(names) or 'none'}",
            hint="give --target twice or more, as --target 0.7x --target 0.5x",
        )
    points: list[FrontPoint] = []
    first: Run | None = None
    for name in names:
        settings = recipe.model_copy(update={"prune": recipe.prune.model_copy(update={"target": name})})
        if progress is not None:
            progress.say(f"target {name}")
        with lock(folder / name):
            opened = prepare_run(settings, folder / name, resume=resume)
            if first is not None:
                _take_over(first, opened)
        try:
            points.append(
                FrontPoint(
                    name, opened.folder, run_pipeline(settings, opened.folder, resume=True, progress=progress), ""
                )
            )
        except TargetError as error:
            points.append(FrontPoint(name, opened.folder, None, str(error)))
        first = first or opened
    if all(point.outcome is None for point in points):
        raise TargetError(f"no target can be reached: {points[0].refused}", where=str(folder))
    reports = [read_report(point.folder / "report" / "report.json") for point in points if point.outcome]
    write_atomic(folder / PAGE, render(reports).encode())
    return tuple(points)


def _take_over(first: Run, opened: Run) -> None:
    """Copy the stages that the runs share, unless the run has them."""
    for stage in SHARED:
        place = opened.stage_folder(stage)
        if is_finished(opened, stage) or first.record(stage) is None:
            continue
        part = place.with_name(f".part-{stage}")
        try:
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(first.stage_folder(stage), part)
            shutil.rmtree(place, ignore_errors=True)
            part.rename(place)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise EdgePruneError(
                f"cannot copy the stage `{stage}`: {error}",
                where=str(opened.folder),
                hint="if the disk is full, free some space; then go on with --resume",
            ) from error
