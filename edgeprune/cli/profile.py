"""`edgeprune profile`: where the time of an exported file goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import DeviceOption, JsonOption, ThreadsOption, milliseconds, show_result


def profile(
    file: Annotated[Path, typer.Argument(help="The file: .tflite (other runtimes tell no kernels).")],
    device: DeviceOption = None,
    threads: ThreadsOption = 1,
    runs: Annotated[int, typer.Option(help="Profiled runs.")] = 400,
    as_json: JsonOption = False,
) -> None:
    """Time each kernel of a file in place.

    Kernels are what the runtime has fused the operators to.
    """
    from rich.table import Column, Table

    from edgeprune.devices.discovery import open_device
    from edgeprune.latency import profile as latency

    found = latency.profile(open_device("local" if device is None else device), file, threads=threads, runs=runs)
    number, *figures = (Column(name, justify="right") for name in ("", "us", "95 %", "share"))
    whole = milliseconds(found.whole_s, found.whole_low_s, found.whole_high_s, found.quality)
    table = Table(
        number,
        Column("kernel", overflow="fold"),
        *figures,
        title=f"{found.file}: {whole} with the profiler on, {found.sum_s * 1e3:.3f} ms of it in kernels",
        caption=f"{found.runtime.id}, {found.threads} threads; {found.evidence}",
    )
    for place, kernel in enumerate(found.kernels):
        interval = f"{kernel.low_s * 1e6:.1f}-{kernel.high_s * 1e6:.1f}"
        table.add_row(str(place), kernel.name, f"{kernel.median_s * 1e6:.1f}", interval, f"{kernel.share:.1%}")
    show_result(found.model_dump(mode="json"), table, as_json=as_json)
