"""Variants: a model at a few widths of all its groups at once, run whole, which is what fills the table in place."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeprune.errors import ConversionError, DeviceError, UsageError
from edgeprune.latency.bench import Bench
from edgeprune.latency.in_place import NotInPlace, match_layers, model_key, times_in_place
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.profile import profile
from edgeprune.latency.table import Setting
from edgeprune.models.spec import Model
from edgeprune.reparam.merge import merge
from edgeprune.scratch import scratch_folder
from edgeprune.space.cut import remove_units
from edgeprune.space.decisions import Limits, allowed_widths
from edgeprune.space.units import Structure

VARIANTS = 6
PROFILED_S = 2.0  # of runs under the profiler
LEAST_RUNS, MOST_RUNS = 40, 300
DISTURBED = 1.2  # times what the kernels take together in a calm run
PROFILES = 2  # of a file at most, where the first was disturbed


def variant_widths(structure: Structure, *, granularity: int, minimum: int, seed: int = 0) -> list[dict[str, int]]:
    """Units kept in each variant: every group once at each of `VARIANTS` widths from its least almost to its full
    one, in an order of its own (a Latin hypercube), so that no two layers always have their narrow sides together.

    Of a model with few widths, variants that come out alike, or unpruned, are left out.
    """
    kept: list[dict[str, int]] = [{} for _ in range(VARIANTS)]
    limits = Limits(granularity, minimum)
    for group in structure.groups:
        widths = allowed_widths(group, limits)[::-1]
        levels = [widths[i * (len(widths) - 1) // VARIANTS] for i in range(VARIANTS)]
        random.Random(f"{seed} {group.id}").shuffle(levels)
        for variant, width in zip(kept, levels, strict=True):
            variant[group.id] = width
    different = {tuple(variant.values()): variant for variant in kept if variant != structure.sizes}
    return list(different.values())


def missing_variants(structure: Structure, bench: Bench, setting: Setting) -> list[dict[str, int]]:
    """The unpruned model and the variants that the table lacks for a setting, or has from beside other work, as units
    kept."""
    variants = variant_widths(structure, granularity=bench.granularity, minimum=bench.minimum)
    base, known = model_key(structure.layers, structure.sizes), bench.table.models(setting)
    doubtful = disturbed({key: run for key, run in known.items() if run.base == base})
    keys = {model_key(structure.layers, kept): kept for kept in (structure.sizes, *variants)}
    return [kept for key, kept in keys.items() if key not in known or key in doubtful]


def disturbed(runs: Mapping[str, ModelRun]) -> set[str]:
    """Of the runs of one model's forms, by key, those whose profile was taken beside other work: their kernels took far
    more together than the model by itself, and more so than those of the calmest quarter of the runs."""
    shares = {key: run.sum_s / run.measurement.median_s for key, run in runs.items() if run.layers}
    if not shares:
        return set()
    calm = max(1.0, float(np.quantile(list(shares.values()), 0.25)))
    return {key for key, share in shares.items() if share > DISTURBED * calm}


def run_variants(model: Model, structure: Structure, original: Path, measurement: Measurement, bench: Bench) -> None:
    """Put the unpruned model and its variants into the table, as far as they are not there.

    Each is written by the exporter and timed by itself; LiteRT's are profiled, too. What was done is kept when the
    rest is interrupted. A variant that cannot be exported or run is left out, with a message, and tried again the next
    time.

    Args:
        original: the unpruned model's file for the runtime, and `measurement` its latency.

    Raises:
        NotInPlace: the unpruned model's kernels cannot be told by layer, or most variants were left out.
        DeviceError: the device is in use or was lost, or the runtime is another one by now.
    """
    setting = Setting(measurement.device, measurement.runtime.id, measurement.threads, bench.precision)
    missing = missing_variants(structure, bench, setting)
    base = model_key(structure.layers, structure.sizes)
    known = bench.table.models(setting)
    if again := sum(model_key(structure.layers, kept) in known for kept in missing):
        bench.progress.say(f"{again} whole models in the table were timed beside other work: they are timed again")

    def record(file: Path, whole: Measurement, kept: Mapping[str, int]) -> None:
        if whole.runtime.id != setting.build:
            raise DeviceError("the runtime was changed while probing", where=bench.device.id, hint="probe again")
        before, layers = _profiled(file, whole, structure, kept, bench) if bench.runtime == "litert" else (0.0, ())
        run = ModelRun(base=base, measurement=whole, before_s=before, layers=layers)
        bench.table.put_model(setting, model_key(structure.layers, kept), run)

    if structure.sizes in missing:
        bench.progress.update("the unpruned model, each layer in its place", 0, len(missing))
        record(original, measurement, structure.sizes)
    todo = [kept for kept in missing if kept != structure.sizes]
    if not todo:
        return
    left_out = 0
    with scratch_folder("variants") as scratch:
        file = scratch / f"variant{original.suffix}"
        for number, kept in enumerate(todo):
            bench.progress.update("the whole model at other widths", number, len(todo))
            removed = {g.id: tuple(range(kept[g.id], g.size)) for g in structure.groups if kept[g.id] < g.size}
            module = merge(remove_units(model.module, structure, removed), model.example_input())
            try:
                bench.exporter.write(model.with_module(module), file)
                record(file, bench.measure(file), kept)
            except (NotInPlace, ConversionError, UsageError) as error:
                left_out += 1
                bench.progress.say(f"a variant of the model is left out of the table: {error}")
    variants = len(variant_widths(structure, granularity=bench.granularity, minimum=bench.minimum))
    if 2 * left_out > variants:  # of all: those that the table has need not be tried again, and one that fails is
        raise NotInPlace(f"{left_out} of {variants} variants of the model were left out")
    bench.progress.update("measured", len(todo), len(todo))


def _profiled(
    file: Path, whole: Measurement, structure: Structure, kept: Mapping[str, int], bench: Bench
) -> tuple[float, tuple[tuple[str, str, float], ...]]:
    """What a run of the model holds beside its latency: seconds ahead of the first layer, and by layer."""
    matches = match_layers(file, structure.layers, kept)
    runs = max(LEAST_RUNS, min(MOST_RUNS, round(PROFILED_S / whole.median_s)))
    least: tuple[float, tuple[tuple[str, str, float], ...]] | None = None
    for _ in range(PROFILES):
        try:
            found = profile(bench.device, file, threads=whole.threads, runs=runs)
        except UsageError as error:  # the model runs, its profiler does not: another build of the library, say
            raise NotInPlace(f"it cannot be profiled: {error.what}", where=file.name) from error
        before, rows = times_in_place(matches, found.kernels)
        layers = tuple((name, operation.key(), seconds) for name, operation, seconds in rows)
        if least is None or _sum_of((before, layers)) < _sum_of(least):
            least = before, layers
        if _sum_of(least) <= DISTURBED * whole.median_s:
            break
    assert least is not None
    return least


def _sum_of(profiled: tuple[float, tuple[tuple[str, str, float], ...]]) -> float:
    before, layers = profiled
    return before + sum(seconds for _, _, seconds in layers)
