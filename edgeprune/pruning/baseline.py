"""The baseline: the unpruned model on the device, and the table of what its layers cost there at several widths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeprune.artifacts.export import export_for_measuring
from edgeprune.devices.base import Device
from edgeprune.devices.runtimes import SUFFIX_OF
from edgeprune.latency.cost import LatencyCost
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.probes import probe
from edgeprune.latency.protocol import measure
from edgeprune.latency.table import LatencyTable
from edgeprune.models.spec import Model
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
    costs: LatencyCost


def probe_model(
    model: Model,
    folder: Path,
    *,
    device: Device,
    table: LatencyTable,
    runtime: Runtime,
    threads: int,
    protocol: str,
    granularity: int,
    keep: tuple[str, ...] = (),
    layers: bool = True,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Baseline:
    """Measure the whole model, then (with `layers`) its layers at several widths, into the table; `folder` gets
    the whole model's file.

    Raises:
        ModelError: the model cannot be traced or nothing in it can be removed.
        DeviceError: the device is unavailable.
    """
    example = model.example_input()
    structure = find_structure(model.module, example, keep=keep)
    file = folder / f"original{SUFFIX_OF[runtime]}"
    export_for_measuring(model.with_module(merge(model.module, example)), runtime, file)
    measurement = measure(device, [file], runtime=runtime, threads=threads, protocol=protocol)[0]
    if layers:
        probe(
            device,
            structure.layers,
            structure.sizes,
            table,
            runtime=runtime,
            threads=threads,
            granularity=granularity,
            on_progress=on_progress,
        )
    return Baseline(structure, file, measurement, costs_of(table, device, measurement, threads))


def costs_of(table: LatencyTable, device: Device, measurement: Measurement, threads: int) -> LatencyCost:
    """The table's costs for the device and runtime build that a measurement was made with."""
    return LatencyCost(table, device.facts().fingerprint, measurement.runtime.id, threads)
