"""`edgeprune export RUN|MODEL`: the files of a run, or of a model as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeprune.cli.console import (
    InputSizeOption,
    JsonOption,
    RichProgress,
    TaskOption,
    TrustOption,
    complete_formats,
    complete_runs,
    read_input_size,
    refuse_given,
    show_result,
)
from edgeprune.errors import GateFailed, UsageError


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL",
            help="A run folder; or a timm name, package.module:factory or file.py:factory.",
            autocompletion=complete_runs,
        ),
    ],
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="tflite, pte, coreml, onnx, or another's; may be repeated.",
            autocompletion=complete_formats,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Of a model: the folder to make.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Of a model: images for int8 and for its accuracy, as in `prune`.")
    ] = None,
    int8: Annotated[
        bool | None, typer.Option("--int8/--no-int8", help="Of a model: int8 files, too (with --data, unless said).")
    ] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Let timm load its published weights.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: safetensors, or a weights-only .pt.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="The model is meant to know nothing yet.")] = False,
    accuracy: Annotated[
        float | None, typer.Option(help="The model's known accuracy (0 to 1): an alarm if it has less.")
    ] = None,
    num_classes: Annotated[int | None, typer.Option(help="Classes of the classifier.")] = None,
    input_size: InputSizeOption = None,
    task: TaskOption = None,
    labels: Annotated[
        Path | None, typer.Option(help="File of the class names in the model's order, one a line (or a JSON list).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of a model: seed of how the data are divided.")] = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    of_a_model: dict[str, Any] = {
        "pretrained": pretrained or None,
        "checkpoint": checkpoint.resolve() if checkpoint else None,
        "untrained": untrained or None,
        "accuracy": accuracy,
        "num_classes": num_classes,
        **read_input_size(input_size),
        "labels": labels.resolve() if labels else None,
    }
    if _is_run(source):
        refuse_given(
            {**of_a_model, "out": out, "data": data, "int8": int8, "seed": seed, "task": task},
            "a run knows its model, its data and its folder",
            where=source,
        )
        _of_run(Path(source), formats, trust=trust, as_json=as_json)
        return
    refuse_given({"trust": trust or None}, "a model that is named here is trusted", where=source)
    if out is None:
        raise UsageError("where to?", where=source, hint="name a folder for the files: --out exported/")
    from edgeprune import api
    from edgeprune.stages.export import told_of

    with RichProgress().shown() as progress:
        done = api.export_model(
            source,
            out,
            formats=formats,
            int8=int8,
            data=data,
            task=task,
            seed=seed or 0,
            progress=progress,
            **of_a_model,
        )
    files = {manifest.file: manifest.size_bytes for manifest in done.manifests}
    _show({"out": str(out), "files": files, **told_of(done, out)}, as_json=as_json)


def _is_run(source: str) -> bool:
    """Whether a run folder is meant: a folder that is there, or a path that leads nowhere."""
    if ":" in source:
        return False
    return Path(source).is_dir() or Path(source).name != source


def _of_run(run: Path, formats: list[str] | None, *, trust: bool, as_json: bool) -> None:
    from edgeprune import api

    with RichProgress().shown() as progress:
        record = api.export(run, formats=formats, progress=progress, trust=trust)
    _show(record.result, as_json=as_json)


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    from rich.pretty import Pretty

    show_result(result, Pretty(result), as_json=as_json)
    if result.get("not_written"):
        raise typer.Exit(GateFailed.exit_code)
