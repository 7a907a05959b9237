from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_here import bench_in

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.latency.bench import Bench


@pytest.fixture(scope="module", autouse=True)
def _toolkits_are_warm(warm_toolkits: None) -> None: ...


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with MeasuringExporter("litert") as exporter:
        yield bench_in(tmp_path, exporter)
