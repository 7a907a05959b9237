"""The baseline: the unpruned model on the device, and what its pruned forms are predicted to take there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.base import Device
from edgeprune.devices.runtimes import SUFFIX_OF
from edgeprune.latency.in_place import NotInPlace
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.predictor import Predictor, predictor_of
from edgeprune.latency.probes import find_staircases, probe
from edgeprune.latency.protocol import measure
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.models.spec import Model
from edgeprune.pruning.variants import run_variants
from edgeprune.recipe import Runtime
from edgeprune.reparam.merge import merge
from edgeprune.structure.find import find_structure
from edgeprune.structure.units import Structure


@dataclass(frozen=True)
class Baseline:
    """What pruning starts from."""

    structure: Structure
    file: Path  # the unpruned model, merged, fp32, in the target runtime's format
    measurement: Measurement


@dataclass(frozen=True)
class Probing:
    """Where and how a model is probed. `granularity` and `minimum` are those of the widths that may be chosen."""

    device: Device
    table: LatencyTable
    runtime: Runtime
    exporter: MeasuringExporter  # of that runtime
    threads: int
    protocol: str
    granularity: int
    minimum: int
    on_progress: Callable[[int, int, str], None] = lambda *_: None  # (done, to do, what)
    on_message: Callable[[str], None] = lambda _: None


def measure_original(model: Model, folder: Path, probing: Probing, *, keep: tuple[str, ...] = ()) -> Baseline:
    """Find the model's structure, write it for the runtime into `folder` and measure it whole.

    Raises:
        ModelError: the model cannot be traced or nothing in it can be removed.
        DeviceError: the device is unavailable.
    """
    example, runtime = model.example_input(), probing.runtime
    structure = find_structure(model.module, example, keep=keep)
    file = folder / f"original{SUFFIX_OF[runtime]}"
    probing.exporter.write(model.with_module(merge(model.module, example)), file)
    measurement = measure(probing.device, [file], runtime=runtime, threads=probing.threads, protocol=probing.protocol)[
        0
    ]
    return Baseline(structure, file, measurement)


def probe_layers(model: Model, baseline: Baseline, probing: Probing) -> Predictor:
    """Measure what the table lacks to predict the model's pruned forms; returns the predictor.

    LiteRT tells what each kernel takes inside of a model, so there the model runs whole at a few widths. Where a
    runtime tells none, or the exporter rewrote layers so that kernels and layers cannot be matched, operations are
    timed alone; the message says so.

    Raises:
        DeviceError: the device is in use or was lost; what was measured before is kept.
    """
    structure, measurement = baseline.structure, baseline.measurement
    setting = Setting(probing.device.facts().fingerprint, measurement.runtime.id, measurement.threads)
    find_staircases(
        probing.device,
        structure.layers,
        probing.table,
        runtime=probing.runtime,
        threads=probing.threads,
        on_progress=probing.on_progress,
    )
    if probing.runtime != "litert" or not _ran_in_place(model, baseline, probing):
        probe(
            probing.device,
            structure.layers,
            structure.sizes,
            probing.table,
            runtime=probing.runtime,
            threads=probing.threads,
            granularity=probing.granularity,
            on_progress=probing.on_progress,
        )
    return predictor_of(probing.table, setting, structure.layers, structure.sizes, measurement)


def _ran_in_place(model: Model, baseline: Baseline, probing: Probing) -> bool:
    try:
        with TemporaryDirectory(prefix="edgeprune-variants-") as scratch:
            run_variants(
                model,
                baseline.structure,
                baseline.file,
                baseline.measurement,
                Path(scratch),
                device=probing.device,
                table=probing.table,
                exporter=probing.exporter,
                protocol=probing.protocol,
                granularity=probing.granularity,
                minimum=probing.minimum,
                on_progress=probing.on_progress,
            )
    except NotInPlace as error:
        probing.on_message(f"operations are timed alone: {error}")
        return False
    return True
