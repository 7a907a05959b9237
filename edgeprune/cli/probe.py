"""`edgeprune probe`: fill the latency table for a model."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeprune.cli.console import (
    DeviceOption,
    InputSizeOption,
    JsonOption,
    PrecisionOption,
    RichProgress,
    RuntimeOption,
    ThreadsOption,
    load_model,
    milliseconds,
    read_precision,
    show_result,
)


def probe(
    model: Annotated[str, typer.Argument(help="A timm name, package.module:factory or file.py:factory.")],
    device: DeviceOption = None,
    runtime: RuntimeOption = "litert",
    threads: ThreadsOption = 1,
    precision: PrecisionOption = "fp32",
    protocol: Annotated[str, typer.Option(help="Of the whole model: quick, standard or mlperf.")] = "quick",
    granularity: Annotated[int | None, typer.Option(help="Widths in steps of this; the device profile's else.")] = None,
    input_size: InputSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fill the latency table for a model.

    It is measured whole, and at several widths as far as the table lacks them.
    """
    from edgeprune import api

    found = load_model(model, input_size)
    progress = RichProgress()
    with progress.shown():
        progress.stage("probe")
        probed = api.probe(
            found,
            device="local" if device is None else device,
            runtime=runtime,
            threads=threads,
            protocol=protocol,
            granularity=granularity,
            precision=read_precision(precision) or "fp32",
            progress=progress,
        )
    whole = probed.measurement
    result = {
        "model": model,
        "precision": precision,
        "measurement": whole.model_dump(mode="json"),
        "operations_in_table": probed.operations_in_table,
        "whole_models_in_table": probed.whole_models_in_table,
        "predictor": {"basis": probed.basis, "spread": probed.spread},
        "unmeasured": probed.unmeasured,
        "profile": probed.profile,
        "seconds": round(probed.seconds, 1),
    }
    latency = milliseconds(whole.median_s, whole.low_s, whole.high_s, whole.quality)
    shown = "\n".join(
        [
            f"{model}, {precision}: {latency} with {whole.runtime.id} on {device or 'local'} ({probed.profile})",
            f"its pruned forms are predicted from {probed.basis}: {_trust(probed.spread)}",
            f"the table is {probed.table}; {probed.seconds:.0f} s",
            *(f"not measured: {operation}: {reason}" for operation, reason in probed.unmeasured.items()),
        ]
    )
    show_result(result, shown, as_json=as_json)


def _trust(spread: float | None) -> str:
    """How far off predictions were, in words."""
    if spread is None:
        return "how well, was not measured"
    return f"95 % within {100 * spread:.2g} % of what is measured, as models and their layers were that were left out"
