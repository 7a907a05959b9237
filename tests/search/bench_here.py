"""This machine as a device that models are probed on, with a table of its own."""

from __future__ import annotations

from pathlib import Path

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.local import LocalDevice
from edgeprune.latency.bench import Bench
from edgeprune.latency.table import LatencyTable


def bench_in(folder: Path, exporter: MeasuringExporter) -> Bench:
    return Bench(
        device=LocalDevice(folder / "device"),
        table=LatencyTable(folder / "t.sqlite"),
        runtime="litert",
        exporter=exporter,
        threads=1,
        protocol="probe",
        granularity=8,
        minimum=8,
    )
