"""`edgeprune probe`: fill the latency table for a model."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edgeprune.cli.console import (
    DeviceOption,
    InputSizeOption,
    JsonOption,
    RichProgress,
    milliseconds,
    read_input_size,
    show_result,
)


def probe(
    model: Annotated[str, typer.Argument(help="A timm name, package.module:factory or file.py:factory.")],
    device: DeviceOption = None,
    runtime: Annotated[Literal["litert", "executorch"], typer.Option(help="The runtime to measure in.")] = "litert",
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    protocol: Annotated[str, typer.Option(help="Of the whole model: quick, standard or mlperf.")] = "quick",
    granularity: Annotated[int | None, typer.Option(help="Widths in steps of this; the device profile's else.")] = None,
    input_size: InputSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model, and its operations at several widths as far as the latency table lacks them."""
    import tempfile
    import time
    from pathlib import Path

    from edgeprune.api import load
    from edgeprune.devices.discovery import open_device
    from edgeprune.latency.care import profile_of
    from edgeprune.latency.cost import total
    from edgeprune.latency.table import LatencyTable, Setting
    from edgeprune.pruning.baseline import probe_model

    opened, table = open_device(device or "local"), LatencyTable()
    profile = profile_of(opened)
    found = load(model, input_size=read_input_size(input_size)) if input_size else load(model)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, opened.lease(), RichProgress().shown() as progress:
        progress.stage("probe")
        baseline = probe_model(
            found,
            Path(folder),
            device=opened,
            table=table,
            runtime=runtime,
            threads=threads,
            protocol=protocol,
            granularity=granularity or profile.channel_multiple,
            on_progress=lambda done, total, text: progress.update(text, done, total),
        )
    total(baseline.structure.layers, baseline.structure.sizes, baseline.costs)  # asks for all, and notes what lacks
    seconds, whole = time.monotonic() - begin, baseline.measurement
    known = table.medians(Setting(opened.facts().fingerprint, whole.runtime.id, threads))
    result = {
        "model": model,
        "measurement": whole.model_dump(mode="json"),
        "operations_in_table": len(known),
        "unmeasured": dict(baseline.costs.unmeasured),
        "profile": profile.name,
        "seconds": round(seconds, 1),
    }
    latency = milliseconds(whole.median_s, whole.low_s, whole.high_s, whole.quality)
    shown = "\n".join(
        [
            f"{model}: {latency} with {whole.runtime.id} on {opened.id} ({profile.name})",
            f"{len(known)} operations of this device, build and number of threads are in {table.path}; {seconds:.0f} s",
            *(f"not measured: {operation}: {reason}" for operation, reason in baseline.costs.unmeasured.items()),
        ]
    )
    show_result(result, shown, as_json=as_json)
