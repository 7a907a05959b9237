"""`edgeprune verify RUN|FILE`: the files of a run on its device, or one file against its manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli.console import (
    DeviceOption,
    InputSizeOption,
    JsonOption,
    RichProgress,
    ThreadsOption,
    TrustOption,
    complete_runs,
    read_input_size,
    refuse_given,
    show_result,
)
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgeprune.file_check import FileCheck
    from edgeprune.models.spec import Model


def verify(
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|FILE", help="A run folder, or an exported file.", autocompletion=complete_runs),
    ],
    device: DeviceOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Where a file differs from this machine: from which operator on.")
    ] = False,
    data: Annotated[str | None, typer.Option(help="Of a file: test images, as in `prune`.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Of a file: the model that it was exported from, or the run folder of it.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(help="Of a file: NAME=LIMIT of the recipe's [verify.gates], or NAME=false; may be repeated."),
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Of a file: test images at most.")] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Of --model: timm's published weights.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Of --model: weights.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Of --model: classes of the classifier.")] = None,
    input_size: InputSizeOption = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="The model is meant to know nothing yet.")] = False,
    threads: ThreadsOption = 1,
    seed: Annotated[int | None, typer.Option(help="Of a file: seed of how the data are divided.")] = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    of_model: dict[str, Any] = {
        "pretrained": pretrained or None,
        "checkpoint": checkpoint,
        "num_classes": num_classes,
        **read_input_size(input_size),
    }
    of_file: dict[str, Any] = {"data": data, "images": images, "untrained": untrained or None, "seed": seed}
    if not _is_file(source):
        others = {**of_model, **of_file, "model": model, "gate": gate or None}
        others["threads"] = threads if threads != 1 else None
        refuse_given(others, "a run knows its model, its data and its gates", where=str(source))
        _of_run(source, device, explain=explain, trust=trust, as_json=as_json)
        return
    refuse_given({"explain": explain or None}, "`edgeprune explain FILE` does that", where=str(source))
    if model is None:
        refuse_given(of_model, "they are of --model, which is not given", where=str(source))
    from edgeprune import api
    from edgeprune.verify.verdict import exit_code

    with RichProgress().shown() as progress:
        found = api.verify_file(
            source,
            model=_load(model, of_model, trust=trust) if model is not None else None,
            device=device or "local",
            gates=_gates(gate or []),
            threads=threads,
            trust=trust,
            progress=progress,
            **{name: value for name, value in of_file.items() if value is not None},
        )
    result = json.loads(found.verdict.model_dump_json()) | {"outcome": found.verdict.outcome, "notes": found.notes}
    show_result(result, _table(found), as_json=as_json)
    raise typer.Exit(exit_code(found.verdict))


def _is_file(source: Path) -> bool:
    """Whether an exported file is meant (a Core ML package is a folder), or its manifest."""
    from edgeprune.devices.runtimes import RUNTIME_OF

    return source.is_file() or source.suffix in RUNTIME_OF


def _load(source: str, options: dict[str, Any], *, trust: bool) -> Model:
    from edgeprune.api import load

    return load(source, trust=trust, **{name: value for name, value in options.items() if value is not None})


def _gates(texts: list[str]) -> dict[str, Any]:
    """The limits of --gate by name.

    Raises:
        UsageError: one is not written like int8_accuracy_drop=0.02.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, limit = text.partition("=")
        try:
            found[name.strip()] = False if equals and limit.strip() == "false" else float(limit)
        except ValueError as error:
            raise UsageError(
                f"cannot read --gate {text}", hint="write it like int8_accuracy_drop=0.02, or int8_agreement=false"
            ) from error
    return found


def _table(found: FileCheck) -> RenderableType:
    from rich.console import Group
    from rich.table import Column, Table
    from rich.text import Text

    from edgeprune.report import text

    verdict, file = found.verdict, found.file
    table = Table(
        "check",
        "figure",
        "limit",
        "outcome",
        Column("why", overflow="fold"),
        title=f"{file.file} on {file.executed_on}: {verdict.outcome}",
    )
    for check in file.checks:
        row = (check.name, text.check_figure(check), text.check_limit(check), check.outcome, check.why)
        table.add_row(*map(Text, row))
    return Group(table, *(Text(f"note: {note}") for note in found.notes))


def _of_run(run: Path, device: str | None, *, explain: bool, trust: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from rich.pretty import Pretty

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
    show_result(result, Pretty(result), as_json=as_json)
    raise typer.Exit(exit_code(verdict))
