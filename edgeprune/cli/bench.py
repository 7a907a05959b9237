"""`edgeprune bench`: latency of files on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli.console import DeviceOption, JsonOption, RichProgress, ThreadsOption, milliseconds, show_result

if TYPE_CHECKING:
    from edgeprune.latency.measurement import Measurement


def bench(
    files: Annotated[list[Path], typer.Argument(help="Files to measure: .tflite, .pte, .onnx, .mlpackage.")],
    device: DeviceOption = None,
    threads: ThreadsOption = 1,
    protocol: Annotated[str, typer.Option(help="quick, standard or mlperf.")] = "quick",
    compute_units: Annotated[
        str, typer.Option(help="Where Core ML may run: ALL, CPU_AND_GPU, CPU_AND_NE or CPU_ONLY.")
    ] = "ALL",
    as_json: JsonOption = False,
) -> None:
    """Measure the latency of files on a device.

    Those of one runtime are interleaved; each latency has an interval and a quality.
    """
    from rich.table import Column, Table

    from edgeprune.devices.discovery import open_device
    from edgeprune.devices.runtimes import compute_units_of, runtime_of
    from edgeprune.latency.protocol import measure

    runtimes = {file: runtime_of(file) for file in files}
    units = compute_units_of(compute_units)
    opened = open_device("local" if device is None else device)
    measured: dict[Path, Measurement] = {}
    with opened.lease(), RichProgress().shown() as progress:
        for runtime in dict.fromkeys(runtimes.values()):
            group = [file for file in files if runtimes[file] == runtime]
            results = measure(
                opened,
                group,
                runtime=runtime,
                threads=threads,
                protocol=protocol,
                compute_units=units,
                progress=progress,
            )
            measured.update(zip(group, results, strict=True))
    table = Table(Column("file", overflow="fold"), "runtime", "latency", "p90", "samples")
    for file in files:
        m = measured[file]
        shown = milliseconds(m.median_s, m.low_s, m.high_s, m.quality)
        table.add_row(str(file), m.runtime.id, shown, f"{m.p90_s * 1e3:.3f} ms", str(len(m.samples_s)))
    show_result([measured[file].model_dump(mode="json") for file in files], table, as_json=as_json)
