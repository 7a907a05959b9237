"""`edgeprune tune|merge|quantize|export|verify RUN`: one stage alone, on a run folder.

Every stage whose object says what its command is for has one. `export` and `verify`, which do more, have files of
their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.cli.console import JsonOption, RichProgress, TrustOption, complete_runs, show_result
from edgeprune.cli.export import export
from edgeprune.cli.verify import verify
from edgeprune.launch import is_main
from edgeprune.stages.stage import PIPELINE

RunArgument = Annotated[Path, typer.Argument(help="The run folder.", autocompletion=complete_runs)]


def tune(
    run: RunArgument,
    epochs: Annotated[int | None, typer.Option(help="Epochs of re-training.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    from edgeprune import api

    if not is_main():  # of several processes, one tells
        api.tune(run, epochs=epochs, lr=lr, trust=trust)
        return
    with RichProgress().shown() as progress:
        record = api.tune(run, epochs=epochs, lr=lr, progress=progress, trust=trust)
    _show(record.result, as_json=as_json)


def _plain(name: str) -> Callable[..., None]:
    """The command of a stage that takes no more than its run."""

    def command(run: RunArgument, trust: TrustOption = False, as_json: JsonOption = False) -> None:
        from edgeprune import verbs

        with RichProgress().shown() as progress:
            asked = {"enabled": True} if name == "quantize" else {}
            record = verbs.do(run, name, progress=progress, trust=trust, **asked)
        _show(record.result, as_json=as_json)

    return command


_OWN: dict[str, Callable[..., None]] = {"tune": tune, "export": export, "verify": verify}


def add_commands(app: typer.Typer) -> None:
    """Add the command of each stage that has one."""
    for stage in PIPELINE:
        if stage.said:
            app.command(stage.name, help=stage.said)(_OWN.get(stage.name) or _plain(stage.name))


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    from rich.pretty import Pretty

    show_result(result, Pretty(result), as_json=as_json)
