"""Variants: a model at a few widths of all its groups at once, run whole, which is what fills the table in place."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.base import Device
from edgeprune.latency.in_place import NotInPlace, match_layers, model_key, times_in_place
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.profile import profile
from edgeprune.latency.protocol import measure
from edgeprune.latency.table import LatencyTable, Setting
from edgeprune.models.spec import Model
from edgeprune.pruning.allocate import allowed_widths
from edgeprune.reparam.merge import merge
from edgeprune.structure.surgery import remove_units
from edgeprune.structure.units import Structure

VARIANTS = 6
PROFILED_S = 2.0  # of runs under the profiler
LEAST_RUNS, MOST_RUNS = 40, 300


def variant_widths(structure: Structure, *, granularity: int, minimum: int, seed: int = 0) -> list[dict[str, int]]:
    """Units kept in each variant: every group once at each of `VARIANTS` widths from its least almost to its full
    one, in an order of its own (a Latin hypercube), so that no two layers always have their narrow sides together."""
    kept: list[dict[str, int]] = [{} for _ in range(VARIANTS)]
    for group in structure.groups:
        widths = allowed_widths(group, granularity=granularity, minimum=minimum)[::-1]
        levels = [widths[round(i * (len(widths) - 1) / VARIANTS)] for i in range(VARIANTS)]
        random.Random(f"{seed} {group.id}").shuffle(levels)
        for variant, width in zip(kept, levels, strict=True):
            variant[group.id] = width
    return kept


def run_variants(
    model: Model,
    structure: Structure,
    original: Path,
    measurement: Measurement,
    folder: Path,
    *,
    device: Device,
    table: LatencyTable,
    exporter: MeasuringExporter,
    protocol: str,
    granularity: int,
    minimum: int,
    on_progress: Callable[[int, int, str], None],
) -> None:
    """Put the unpruned model and its variants into the table, as far as they are not there: each is written by the
    exporter, timed by itself, and profiled. What was done is kept when the rest is interrupted.

    Args:
        original: the unpruned model's .tflite file, and `measurement` its latency.
        folder: for the variants' files, which are deleted again.

    Raises:
        NotInPlace: the unpruned model's kernels cannot be told by layer.
        DeviceError: the device is in use or was lost.
    """
    setting = Setting(device.facts().fingerprint, measurement.runtime.id, measurement.threads)
    base = model_key(structure.layers, structure.sizes)

    def keep(file: Path, whole: Measurement, kept: Mapping[str, int]) -> None:
        matches = match_layers(file, structure.layers, kept)
        runs = max(LEAST_RUNS, min(MOST_RUNS, round(PROFILED_S / whole.median_s)))
        found = profile(device, file, threads=whole.threads, runs=runs)
        before, rows = times_in_place(matches, found.kernels)
        layers = tuple((name, operation.key(), seconds) for name, operation, seconds in rows)
        run = ModelRun(base=base, measurement=whole, before_s=before, layers=layers)
        table.put_model(setting, model_key(structure.layers, kept), run)

    known = table.models(setting)
    if base not in known:
        on_progress(0, VARIANTS + 1, "the unpruned model under the profiler")
        keep(original, measurement, structure.sizes)
    variants = variant_widths(structure, granularity=granularity, minimum=minimum)
    todo = [kept for kept in variants if model_key(structure.layers, kept) not in known]
    if not todo:
        return
    example = model.example_input()
    for number, kept in enumerate(todo, start=VARIANTS - len(todo)):
        on_progress(number + 1, VARIANTS + 1, "the model at other widths, each layer in its place")
        removed = {g.id: tuple(range(kept[g.id], g.size)) for g in structure.groups if kept[g.id] < g.size}
        module = merge(remove_units(model.module, structure, removed), example)
        file = exporter.write(model.with_module(module), folder / "variant.tflite")
        whole = measure(device, [file], runtime="litert", threads=measurement.threads, protocol=protocol)[0]
        try:
            keep(file, whole, kept)
        except NotInPlace as error:
            on_progress(number + 1, VARIANTS + 1, f"left out: {error}")
        file.unlink()
    on_progress(VARIANTS + 1, VARIANTS + 1, "measured")
