"""`edgeprune run`: the whole job from a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import DeviceOption, JsonOption, RichProgress, show_result


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe (TOML).")],
    device: DeviceOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder; runs/<recipe's name> if not given.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Do the whole job of a recipe.

    Prune, tune, merge, quantize, export and verify a model as the recipe says, and write the report.
    """
    from edgeprune.recipe_file import read_recipe

    settings = read_recipe(recipe)  # before the heavy imports: a wrong recipe is told at once

    from edgeprune.api import run as run_recipe
    from edgeprune.report.data import read_report
    from edgeprune.report.summary import summary
    from edgeprune.verify.verdict import exit_code

    folder = out or Path("runs") / recipe.stem
    with RichProgress().shown() as progress:
        outcome = run_recipe(settings, folder, device=device, resume=resume, progress=progress)
    result = {
        "outcome": outcome.verdict.outcome,
        "run": str(folder),
        "report": str(outcome.page),
        "verdict": json.loads(outcome.verdict.model_dump_json()),
    }
    show_result(result, summary(read_report(outcome.page.with_name("report.json"))), as_json=as_json)
    if not as_json:
        typer.echo(f"report: {outcome.page}")
    raise typer.Exit(exit_code(outcome.verdict))
