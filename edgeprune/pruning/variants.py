"""Variants: a model at a few widths of all its groups at once, run whole, which is what fills the table in place."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeprune.errors import UsageError
from edgeprune.latency.in_place import NotInPlace, match_layers, model_key, times_in_place
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.profile import profile
from edgeprune.latency.table import Setting
from edgeprune.models.spec import Model
from edgeprune.pruning.allocate import allowed_widths
from edgeprune.pruning.probing import Probing
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
    model: Model, structure: Structure, original: Path, measurement: Measurement, probing: Probing
) -> None:
    """Put the unpruned model and its variants into the table, as far as they are not there.

    Each is written by the exporter and timed by itself; LiteRT's are profiled, too. What was done is kept when the
    rest is interrupted. A variant that the runtime does not run is left out, with a message, and tried again the next
    time.

    Args:
        original: the unpruned model's file for the runtime, and `measurement` its latency.

    Raises:
        NotInPlace: the unpruned model's kernels cannot be told by layer.
        DeviceError: the device is in use or was lost.
    """
    table, setting = probing.table, Setting(measurement.device, measurement.runtime.id, measurement.threads)
    base = model_key(structure.layers, structure.sizes)

    def keep(file: Path, whole: Measurement, kept: Mapping[str, int]) -> None:
        before, layers = _profiled(file, whole, structure, kept, probing) if probing.runtime == "litert" else (0.0, ())
        run = ModelRun(base=base, measurement=whole, before_s=before, layers=layers)
        table.put_model(setting, model_key(structure.layers, kept), run)

    known = table.models(setting)
    if base not in known:
        probing.on_progress(0, VARIANTS + 1, "the unpruned model under the profiler")
        keep(original, measurement, structure.sizes)
    variants = variant_widths(structure, granularity=probing.granularity, minimum=probing.minimum)
    todo = [kept for kept in variants if model_key(structure.layers, kept) not in known]
    if not todo:
        return
    example = model.example_input()
    with TemporaryDirectory(prefix="edgeprune-variants-") as scratch:
        file = Path(scratch) / f"variant{original.suffix}"
        for number, kept in enumerate(todo, start=VARIANTS - len(todo) + 1):
            probing.on_progress(number, VARIANTS + 1, "the whole model at other widths")
            removed = {g.id: tuple(range(kept[g.id], g.size)) for g in structure.groups if kept[g.id] < g.size}
            module = merge(remove_units(model.module, structure, removed), example)
            probing.exporter.write(model.with_module(module), file)
            try:
                keep(file, probing.measure(file), kept)
            except (NotInPlace, UsageError) as error:
                probing.on_message(f"a variant of the model is left out of the table: {error}")
    probing.on_progress(VARIANTS + 1, VARIANTS + 1, "measured")


def _profiled(
    file: Path, whole: Measurement, structure: Structure, kept: Mapping[str, int], probing: Probing
) -> tuple[float, tuple[tuple[str, str, float], ...]]:
    """What a run of the model holds beside its latency: seconds ahead of the first layer, and by layer."""
    matches = match_layers(file, structure.layers, kept)
    runs = max(LEAST_RUNS, min(MOST_RUNS, round(PROFILED_S / whole.median_s)))
    found = profile(probing.device, file, threads=whole.threads, runs=runs)
    before, rows = times_in_place(matches, found.kernels)
    return before, tuple((name, operation.key(), seconds) for name, operation, seconds in rows)
