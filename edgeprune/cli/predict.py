"""`edgeprune predict`: the latency of a plan, from the latency table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import (
    DeviceOption,
    InputSizeOption,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    ThreadsOption,
    load_model,
    read_precision,
    show_result,
)


def predict(
    model: Annotated[str, typer.Argument(help="The unpruned model, as it was given to `edgeprune probe`.")],
    plan: Annotated[Path | None, typer.Option(help="A plan.json; without it the model as it is.")] = None,
    device: DeviceOption = None,
    runtime: RuntimeOption = "litert",
    threads: ThreadsOption = 1,
    precision: PrecisionOption = "fp32",
    input_size: InputSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the latency of a pruned form of a model.

    Nothing is built and nothing is measured: it comes from the latency table that `edgeprune probe` filled.

    With --device profile:NAME it comes from the typical tables of a kind of device, never measured on yours.
    """
    from edgeprune import api
    from edgeprune.space.plan import read_plan

    edits = read_plan(plan) if plan else None
    found = load_model(model, input_size)
    pruned = api.predict(
        found,
        edits,
        device="local" if device is None else device,
        runtime=runtime,
        threads=threads,
        precision=read_precision(precision) or "fp32",
    )
    share = pruned.seconds / pruned.unpruned_s
    lines = [
        f"{plan or model}: {pruned.words}, predicted, not measured",
        f"{share:.3f}x of the unpruned model's {pruned.unpruned_s * 1e3:.3f} ms, predicted too",
        f"from {pruned.basis}",
    ]
    if pruned.extrapolates:
        lines.append(f"beyond what was measured: {', '.join(pruned.extrapolates)}")
    show_result({**pruned.model_dump(), "of_unpruned": share}, "\n".join(lines), as_json=as_json)
