"""`edgeprune sensitivity`: how many zeros each type of layer bears."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import JsonOption, RichProgress, show_result


def sensitivity(
    recipe: Annotated[Path, typer.Argument(help="The recipe (TOML); its [model] and [data] count.")],
    zeros: Annotated[str, typer.Option(help="Shares of zeros, e.g. 0.5,0.9.")] = "0.5,0.8,0.9,0.95,0.99",
    images: Annotated[int, typer.Option(min=1, help="Validation images at most.")] = 500,
    as_json: JsonOption = False,
) -> None:
    """Ask how many zeros each type of layer bears.

    Types are 1x1, depthwise, squeeze-excitation, ...: without re-training, one at a time is pruned by magnitude.
    """
    from edgeprune.errors import UsageError
    from edgeprune.recipe_file import read_recipe

    settings = read_recipe(recipe)  # before the heavy imports
    try:
        shares = tuple(float(share) for share in zeros.split(","))
    except ValueError as error:
        raise UsageError(f"cannot read --zeros {zeros}", hint="write it like 0.5,0.9") from error

    from rich.table import Column, Table

    from edgeprune import api

    with RichProgress().shown() as progress:
        progress.stage("sensitivity")
        found = api.sensitivity(settings, zeros=shares, images=images, progress=progress)
    metric = found.metric
    table = Table(
        Column("type of layer", overflow="fold"),
        *(Column(name, justify="right") for name in ("layers", "weights", "MMACs")),
        *(Column(f"{share * 100:g}% zeros", justify="right") for share in found.zeros),
        Column("bears", justify="right"),
        title=f"{found.model}: {metric.name} {metric.told(found.accuracy)} on {found.images} validation images",
    )
    for row in found.types:
        shown = (metric.told(accuracy) for accuracy in row.accuracy)
        bears = f"{row.bears * 100:g}%" if row.bears else "-"
        table.add_row(row.name, str(row.layers), f"{row.weights}", f"{row.macs / 1e6:.1f}", *shown, bears)
    if found.without_gates is not None:
        table.caption = f"with the mean in the place of every squeeze-excitation gate: {found.without_gates:.1%}"
    show_result(found.model_dump(mode="json"), table, as_json=as_json)
