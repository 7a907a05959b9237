"""`edgeprune tune|merge|quantize|export|verify RUN`: one stage alone, on a run folder."""

from __future__ import annotations

import json
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

RunArgument = Annotated[Path, typer.Argument(help="The run folder.", autocompletion=complete_runs)]


def tune(
    run: RunArgument,
    epochs: Annotated[int | None, typer.Option(help="Epochs of re-training.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Re-train the pruned model.

    The unpruned model is its teacher (distillation).
    """
    from edgeprune import api

    with RichProgress().shown() as progress:
        record = api.tune(run, epochs=epochs, lr=lr, progress=progress, trust=trust)
    _show(record.result, as_json=as_json)


def merge(run: RunArgument, trust: TrustOption = False, as_json: JsonOption = False) -> None:
    """Fold batch norms, and prove that the answers stay.

    They go into the convolutions before them.
    """
    from edgeprune import api

    with RichProgress().shown() as progress:
        record = api.merge(run, progress=progress, trust=trust)
    _show(record.result, as_json=as_json)


def quantize(run: RunArgument, trust: TrustOption = False, as_json: JsonOption = False) -> None:
    """Choose calibration images and schemes for int8 files."""
    from edgeprune import api

    with RichProgress().shown() as progress:
        record = api.quantize(run, progress=progress, trust=trust)
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
    """Write the files of every format.

    Each is written in a child process, and has its manifest.
    """
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
    """Run every file on the device, and judge its figures.

    They are held against the gates of the recipe.
    """
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


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    from rich.pretty import Pretty

    show_result(result, Pretty(result), as_json=as_json)
