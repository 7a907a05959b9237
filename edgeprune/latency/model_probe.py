"""Probing one model: it is measured whole, and the latency table gets what it lacks to predict its pruned forms."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.base import Device
from edgeprune.latency.baseline import fill_table, measure_original
from edgeprune.latency.bench import Bench
from edgeprune.latency.isolation import profile_of
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.table import LatencyTable
from edgeprune.models.spec import Model
from edgeprune.progress import Progress
from edgeprune.recipe import Precision, PruneSection, Runtime
from edgeprune.scratch import scratch_folder


@dataclass(frozen=True)
class Probed:
    """A model's latency, and what the table now knows of its pruned forms.

    `basis` and `spread`: from what they are predicted, and how far off predictions were (None: not measured).
    `unmeasured`: operations that could not be timed, and why.
    """

    measurement: Measurement
    operations_in_table: int
    whole_models_in_table: int
    basis: str
    spread: float | None
    unmeasured: dict[str, str]
    profile: str
    table: Path
    seconds: float


def probe_model(
    model: Model,
    device: Device,
    table: LatencyTable,
    *,
    runtime: Runtime,
    threads: int,
    protocol: str,
    granularity: int | None,
    progress: Progress,
    precision: Precision = "fp32",
) -> Probed:
    """Measure a model on a device, and its operations as far as the table lacks them.

    `granularity`: widths in steps of this; None for the device profile's. `precision`: of the files; int8 ones are
    quantized with random images, see `MeasuringExporter`.

    Raises:
        ModelError: the model cannot be traced, or nothing in it can be removed.
        DeviceError: the device is unavailable, in use or was lost; what was measured before is kept.
    """
    profile, begin = profile_of(device), time.monotonic()
    with scratch_folder("probe") as folder, device.lease(), MeasuringExporter(runtime, precision) as exporter:
        bench = Bench(
            device=device,
            table=table,
            runtime=runtime,
            exporter=exporter,
            threads=threads,
            protocol=protocol,
            granularity=granularity or profile.channel_multiple,
            minimum=PruneSection().minimum_width,
            progress=progress,
        )
        baseline = measure_original(model, Path(folder), bench)
        predictor = fill_table(model, baseline, bench)
    predictor.predict(baseline.structure.sizes)  # asks for all layers, and notes what lacks
    whole = baseline.measurement
    setting = bench.setting(whole.runtime.id)
    return Probed(
        measurement=whole,
        operations_in_table=len(table.medians(setting)),
        whole_models_in_table=len(table.models(setting)),
        basis=predictor.basis,
        spread=predictor.spread,
        unmeasured=dict(predictor.costs.unmeasured),
        profile=profile.name,
        table=table.path,
        seconds=time.monotonic() - begin,
    )
