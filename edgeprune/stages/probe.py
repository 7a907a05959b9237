"""probe: the unpruned model on the device, and its layers at several widths into the latency table.

Where the recipe names a device's profile, both were measured before, on another device of its kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.runtimes import SUFFIX_OF
from edgeprune.errors import RunError
from edgeprune.latency.baseline import Baseline, fill_table, measure_original, write_original
from edgeprune.latency.bench import Bench
from edgeprune.latency.cost import total
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.typical import Typical
from edgeprune.quantization.calibration import calibration_images
from edgeprune.recipe import Target
from edgeprune.runs import write_atomic
from edgeprune.space.find import find_structure
from edgeprune.space.keep import hold
from edgeprune.space.units import Structure
from edgeprune.sparsity.arbiter import check_zeros_can_save
from edgeprune.stages.context import Context
from edgeprune.stages.try_int8 import try_int8
from edgeprune.target_file import said, target_file

IMAGES = 32  # that int8 files to be measured are quantized with: several models are written for each that ships


def probe_stage(context: Context, folder: Path) -> dict[str, Any]:
    recipe, model = context.recipe, context.model("load")
    if context.typical is None:
        try_int8(context)
    if not recipe.prunes and context.typical is None:
        return _measured_whole(context, folder)
    target = Target.parse(recipe.prune.target)
    timed = target.is_latency and not target.takes_nothing
    if not timed:
        why = "prunes no channel" if target.takes_nothing else "is counted, not measured"
        context.progress.say(f"the target {recipe.prune.target} {why}: no layer is probed")
    if target.is_latency and not target.takes_nothing:
        context.progress.say(said(recipe))
    if context.typical is not None:
        return _from_typical(context, context.typical, folder)
    with context.lease(), measuring_exporter(context) as exporter:
        bench = bench_of(context, exporter)
        baseline = measure_original(model, folder, bench, keep=recipe.prune.keep)
        if recipe.sparse.target is not None and Target.parse(recipe.sparse.target).is_latency:
            check_zeros_can_save(context.device, baseline.file, folder)
        if timed:
            predictor = fill_table(model, baseline, bench)
            total(predictor.layers, baseline.structure.sizes, predictor.costs)  # asks for all, and notes what lacks
            for operation, reason in predictor.costs.unmeasured.items():
                context.progress.say(f"not measured, taken for as slow as any of its kind: {operation}: {reason}")
            for product in baseline.structure.products:
                context.progress.say(f"not in the table, its time is taken to stay as it is: {product.name}")
    _keep(context, folder, baseline.measurement)
    return _result(baseline.measurement, baseline.structure)


def _measured_whole(context: Context, folder: Path) -> dict[str, Any]:
    """Of a model that is shipped as it is: its latency. What could go from it is not looked for."""
    context.progress.say("nothing is pruned: no layer is probed")
    with context.lease(), MeasuringExporter(context.recipe.device.runtime) as exporter:
        bench = bench_of(context, exporter)
        measurement = bench.measure(write_original(context.model("load"), folder, bench))
    _keep(context, folder, measurement)
    return {"median_s": measurement.median_s, "quality": measurement.quality}


def _keep(context: Context, folder: Path, m: Measurement) -> None:
    write_atomic(folder / "measurement.json", m.model_dump_json(indent=1).encode())
    context.progress.say(
        f"original: {m.median_s * 1e3:.3f} ms ({m.low_s * 1e3:.3f}-{m.high_s * 1e3:.3f}, {m.quality}) "
        f"with {m.runtime.name} {m.runtime.version} on {context.device.id}"
    )


def _from_typical(context: Context, typical: Typical, folder: Path) -> dict[str, Any]:
    """What the typical tables of a kind of device hold of the model; nothing is measured."""
    structure, device = structure_of(context), context.recipe.device
    precision = target_file(context.recipe).precision
    _, m = typical.predictor(
        structure.layers, structure.sizes, runtime=device.runtime, threads=device.threads, precision=precision
    )
    write_atomic(folder / "measurement.json", m.model_dump_json(indent=1).encode())
    context.progress.say(
        f"original: {m.median_s * 1e3:.3f} ms with {m.runtime.name} {m.runtime.version} on the {typical.profile.name} "
        "of its typical table, never measured on yours"
    )
    return _result(m, structure)


def _result(measurement: Measurement, structure: Structure) -> dict[str, Any]:
    return {
        "median_s": measurement.median_s,
        "quality": measurement.quality,
        "groups": len(structure.groups),
        "units": sum(structure.sizes.values()),
        "frozen": {f.name: f.reason for f in structure.frozen},
    }


def measurement_of(context: Context) -> Measurement:
    """The unpruned model's latency, as a finished probe stage left it."""
    return context.read("probe", "measurement.json", Measurement)


def structure_of(context: Context) -> Structure:
    """What can go from the unpruned model."""
    model = context.model("load")
    return hold(find_structure(model.module, model.example_input()), context.recipe.prune.keep)


def measuring_exporter(context: Context) -> MeasuringExporter:
    """What writes the files that are measured: those that the target is about. int8 ones are quantized with
    calibration images of the run's data."""
    recipe, file = context.recipe, target_file(context.recipe)
    images = None
    if file.precision == "int8":
        split = context.splits.calibration
        images = calibration_images(torch.cat([batch for batch, _ in split.batches(64)]), IMAGES)
    named = None if recipe.prune.file is None else file.format
    return MeasuringExporter(recipe.device.runtime, file.precision, format=named, calibration=images)


def bench_of(context: Context, exporter: MeasuringExporter) -> Bench:
    """Where and how this run probes."""
    recipe = context.recipe
    return Bench(
        device=context.device,
        table=context.table,
        runtime=recipe.device.runtime,
        exporter=exporter,
        threads=recipe.device.threads,
        protocol=recipe.device.protocol,
        granularity=channel_multiple(context),
        minimum=recipe.prune.minimum_width,
        progress=context.progress,
    )


def channel_multiple(context: Context) -> int:
    """Widths that the device's kernels like: the recipe's word, else the device profile's."""
    return context.recipe.prune.granularity or context.profile.channel_multiple


def read_baseline(context: Context) -> Baseline:
    """The baseline that a finished probe stage left."""
    return Baseline(structure=structure_of(context), file=original_file(context), measurement=measurement_of(context))


def original_file(context: Context) -> Path:
    """The unpruned model's file, as a finished probe stage left it.

    Raises:
        RunError: it was measured on another device than the recipe's is now.
    """
    measured = measurement_of(context).device
    fingerprint = context.device.facts().fingerprint
    if measured != fingerprint:
        raise RunError(
            f"this run was probed on another device ({measured}) than {context.device.id} ({fingerprint})",
            where=str(context.run.folder),
            hint="a latency target means one device: go on there, or start a new run here",
        )
    return context.file("probe", f"original{SUFFIX_OF[context.recipe.device.runtime]}")
