"""This machine as a device that models are probed on, with a table of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.local import LocalDevice
from edgeprune.latency.bench import Bench
from edgeprune.latency.table import LatencyTable


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice(tmp_path / "device")


@pytest.fixture
def bench(device: LocalDevice, tmp_path: Path) -> Iterator[Bench]:
    with MeasuringExporter("litert") as exporter:
        yield Bench(
            device=device,
            table=LatencyTable(tmp_path / "t.sqlite"),
            runtime="litert",
            exporter=exporter,
            threads=1,
            protocol="probe",
            granularity=8,
            minimum=8,
        )
