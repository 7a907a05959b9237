"""This machine as a device that models are probed on, with a table of its own."""

from __future__ import annotations

from pathlib import Path

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.local import LocalDevice
from edgeprune.latency.probing import Probing
from edgeprune.latency.table import LatencyTable


def probing_in(folder: Path, exporter: MeasuringExporter) -> Probing:
    return Probing(
        device=LocalDevice(folder / "device"),
        table=LatencyTable(folder / "t.sqlite"),
        runtime="litert",
        exporter=exporter,
        threads=1,
        protocol="probe",
        granularity=8,
        minimum=8,
    )
