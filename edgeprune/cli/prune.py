"""`edgeprune prune`: a model to a target, without writing a recipe first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import (
    DeviceOption,
    InputSizeOption,
    JsonOption,
    RichProgress,
    RuntimeOption,
    TaskOption,
    read_input_size,
    show_result,
)


def prune(
    model: Annotated[str, typer.Argument(help="A timm name, or package.module:factory, or file.py:factory.")],
    target: Annotated[str, typer.Option(help="0.5x, 8ms, 150MMACs, 1.2Mparams or 900KB.")],
    data: Annotated[
        str, typer.Option(help="A folder of class folders, `digits`, npz:FILE, csv:FILE, coco:FILE or timm:NAME.")
    ],
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    target_file: Annotated[
        str | None, typer.Option(help="The exported file that a latency target is about: tflite-int8. Else fp32.")
    ] = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = "litert",
    method: Annotated[
        str,
        typer.Option(help="taylor, magnitude, reprune, halp, netadapt, nvit, isomorphic, or auto (by short trials)."),
    ] = "taylor",
    allocator: Annotated[
        str | None,
        typer.Option(help="judged, additive, knapsack, netadapt, nvit, uniform, global, isomorphic or scales."),
    ] = None,
    auto_minutes: Annotated[float, typer.Option(help="How long `--method auto` may try methods.")] = 30.0,
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
    keep: Annotated[list[str] | None, typer.Option(help="Module name pattern whose width must stay.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Prune a model to a target, without a recipe.

    The target is measured on a device; the other stages go on from the run folder that this makes.

    With --device profile:NAME the latency is predicted from the typical tables of a kind of device, never measured.
    """
    from rich.pretty import Pretty

    from edgeprune.api import prune as prune_model

    with RichProgress().shown() as progress:
        run = prune_model(
            model,
            target=target,
            target_file=target_file,
            data=data,
            out=out,
            progress=progress,
            device=device,
            runtime=runtime,
            method=method,
            allocator=allocator,
            auto_minutes=auto_minutes,
            pretrained=pretrained,
            checkpoint=checkpoint.resolve() if checkpoint else None,
            untrained=untrained,
            accuracy=accuracy,
            num_classes=num_classes,
            **read_input_size(input_size),
            labels=labels.resolve() if labels else None,
            keep=tuple(keep) if keep else None,
            seed=seed,
            task=task,
        )
    record = run.record("prune")
    result = {"run": str(out), **(record.result if record else {})}
    show_result(result, Pretty(result), as_json=as_json)
