"""`edgeprune front`: one recipe at several targets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.cli.console import DeviceOption, JsonOption, RichProgress, show_result


def front(
    recipe: Annotated[Path, typer.Argument(help="The recipe (TOML); its own target does not count.")],
    target: Annotated[list[str], typer.Option(help="A target, as 0.5x or 8ms; give it twice or more.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the runs; runs/<recipe>-front else.")] = None,
    device: DeviceOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the runs that are there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Do a recipe's whole job for several targets.

    What each latency costs in accuracy is shown on one page.
    """
    from edgeprune.recipe_file import read_recipe

    settings = read_recipe(recipe)
    if device is not None:
        settings = settings.model_copy(update={"device": settings.device.model_copy(update={"id": device})})

    from rich.table import Table

    from edgeprune.errors import TargetError
    from edgeprune.report import text
    from edgeprune.report.data import read_report
    from edgeprune.several_targets import PAGE
    from edgeprune.several_targets import front as run_front
    from edgeprune.verify.verdict import exit_code, worst_code

    folder = out or Path("runs") / f"{recipe.stem}-front"
    with RichProgress().shown() as progress:
        points = run_front(settings, target, folder, resume=resume, progress=progress)
    table = Table("target", "latency", "of the original", "accuracy", "verdict")
    rows: list[dict[str, Any]] = []
    for point in points:
        if point.outcome is None:
            rows.append({"target": point.target, "run": str(point.folder), "outcome": "refused", "why": point.refused})
            table.add_row(point.target, "", "", "", point.refused)
            continue
        data, verdict = read_report(point.outcome.page.with_name("report.json")), point.outcome.verdict
        final = data.final
        latency, top1 = (final.latency, final.accuracy) if final else (None, None)
        table.add_row(
            point.target,
            text.latency(latency),
            text.ratio(data.against_original),
            text.accuracy(final),
            verdict.outcome,
        )
        rows.append(
            {
                "target": point.target,
                "run": str(point.folder),
                "outcome": verdict.outcome,
                "latency_s": latency.median_s if latency else None,
                "of_original": data.against_original.ratio if data.against_original else None,
                "accuracy": top1,
                "accuracy_interval": final.accuracy_interval if final else None,
            }
        )
    show_result({"page": str(folder / PAGE), "points": rows}, table, as_json=as_json)
    if not as_json:
        typer.echo(f"page: {folder / PAGE}")
    codes = [exit_code(point.outcome.verdict) if point.outcome else TargetError.exit_code for point in points]
    raise typer.Exit(worst_code(codes))
