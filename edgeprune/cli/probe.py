"""`edgeprune probe`: fill the latency table for a model."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeprune.cli.console import (
    DeviceOption,
    InputSizeOption,
    JsonOption,
    RichProgress,
    RuntimeOption,
    ThreadsOption,
    milliseconds,
    read_input_size,
    show_result,
)


def probe(
    model: Annotated[str, typer.Argument(help="A timm name, package.module:factory or file.py:factory.")],
    device: DeviceOption = None,
    runtime: RuntimeOption = "litert",
    threads: ThreadsOption = 1,
    protocol: Annotated[str, typer.Option(help="Of the whole model: quick, standard or mlperf.")] = "quick",
    granularity: Annotated[int | None, typer.Option(help="Widths in steps of this; the device profile's else.")] = None,
    input_size: InputSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model, and its operations at several widths as far as the latency table lacks them."""
    import time
    from pathlib import Path

    from edgeprune.api import load
    from edgeprune.artifacts.export import MeasuringExporter
    from edgeprune.devices.discovery import open_device
    from edgeprune.installed import require_runtime
    from edgeprune.latency.baseline import measure_original, probe_layers
    from edgeprune.latency.care import profile_of
    from edgeprune.latency.probing import Probing
    from edgeprune.latency.table import LatencyTable, Setting
    from edgeprune.recipe import PruneSection
    from edgeprune.scratch import scratch_folder

    require_runtime(runtime)
    opened, table = open_device("local" if device is None else device), LatencyTable()
    profile = profile_of(opened)
    found = load(model, input_size=read_input_size(input_size)) if input_size else load(model)
    begin = time.monotonic()
    progress = RichProgress()
    with (
        scratch_folder("probe") as folder,
        opened.lease(),
        progress.shown(),
        MeasuringExporter(runtime) as exporter,
    ):
        progress.stage("probe")
        probing = Probing(
            device=opened,
            table=table,
            runtime=runtime,
            exporter=exporter,
            threads=threads,
            protocol=protocol,
            granularity=granularity or profile.channel_multiple,
            minimum=PruneSection().minimum_width,
            on_progress=lambda done, total, text: progress.update(text, done, total),
            on_message=progress.say,
        )
        baseline = measure_original(found, Path(folder), probing)
        predictor = probe_layers(found, baseline, probing)
    predictor.predict(baseline.structure.sizes)  # asks for all layers, and notes what lacks
    seconds, whole = time.monotonic() - begin, baseline.measurement
    setting = Setting(opened.facts().fingerprint, whole.runtime.id, threads)
    result = {
        "model": model,
        "measurement": whole.model_dump(mode="json"),
        "operations_in_table": len(table.medians(setting)),
        "whole_models_in_table": len(table.models(setting)),
        "predictor": {"basis": predictor.basis, "spread": predictor.spread},
        "unmeasured": dict(predictor.costs.unmeasured),
        "profile": profile.name,
        "seconds": round(seconds, 1),
    }
    latency = milliseconds(whole.median_s, whole.low_s, whole.high_s, whole.quality)
    shown = "\n".join(
        [
            f"{model}: {latency} with {whole.runtime.id} on {opened.id} ({profile.name})",
            f"its pruned forms are predicted from {predictor.basis}: {_trust(predictor.spread)}",
            f"the table is {table.path}; {seconds:.0f} s",
            *(f"not measured: {operation}: {reason}" for operation, reason in predictor.costs.unmeasured.items()),
        ]
    )
    show_result(result, shown, as_json=as_json)


def _trust(spread: float | None) -> str:
    """How far off predictions were, in words."""
    if spread is None:
        return "how well, was not measured"
    return f"95 % within {100 * spread:.2g} % of what is measured, as models and their layers were that were left out"
