"""`edgeprune tune|merge|quantize|export|verify RUN`: one stage alone, on a run folder.

Every stage whose object says what its command is for has one; those with options of their own stand here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.cli.console import (
    DeviceOption,
    JsonOption,
    RichProgress,
    TrustOption,
    complete_formats,
    complete_runs,
    show_result,
)
from edgeprune.errors import GateFailed
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


def export(
    run: RunArgument,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="tflite, pte, coreml, onnx, or another's; may be repeated.",
            autocompletion=complete_formats,
        ),
    ] = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    from edgeprune import api

    with RichProgress().shown() as progress:
        record = api.export(run, formats=formats, progress=progress, trust=trust)
    _show(record.result, as_json=as_json)
    if record.result.get("not_written"):
        raise typer.Exit(GateFailed.exit_code)


def verify(
    run: RunArgument,
    device: DeviceOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Where a file differs from this machine: from which operator on.")
    ] = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    from dataclasses import asdict

    from edgeprune import api
    from edgeprune.models.trust import require_device
    from edgeprune.verify.verdict import exit_code

    with RichProgress().shown() as progress:
        verdict = api.verify(run, device=device, progress=progress, trust=trust)
        result = json.loads(verdict.model_dump_json())
        if explain:
            if not trust:
                require_device(verdict.device, run)
            parted = [file.file for file in verdict.files if file.format == "tflite" and file.parts_from_host]
            progress.say(f"files that differ from this machine: {', '.join(parted) or 'none'}")
            found = {name: api.explain(run / "export" / name, device=verdict.device) for name in parted}
            result["explained"] = {name: asdict(one) for name, one in found.items()}
    _show(result, as_json=as_json)
    raise typer.Exit(exit_code(verdict))


def _plain(name: str) -> Callable[..., None]:
    """The command of a stage that takes no more than its run."""

    def command(run: RunArgument, trust: TrustOption = False, as_json: JsonOption = False) -> None:
        from edgeprune import api

        with RichProgress().shown() as progress:
            asked = {"enabled": True} if name == "quantize" else {}
            record = api.do(run, name, progress=progress, trust=trust, **asked)
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
