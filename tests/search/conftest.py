from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from probing_here import probing_in

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.latency.probing import Probing


@pytest.fixture(scope="module", autouse=True)
def _toolkits_are_warm(warm_toolkits: None) -> None: ...


@pytest.fixture
def probing(tmp_path: Path) -> Iterator[Probing]:
    with MeasuringExporter("litert") as exporter:
        yield probing_in(tmp_path, exporter)
