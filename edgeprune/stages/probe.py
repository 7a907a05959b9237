"""probe: the unpruned model on the device, and its layers at several widths into the latency table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune.devices.runtimes import SUFFIX_OF
from edgeprune.errors import RunError, TargetError
from edgeprune.latency.care import profile_of
from edgeprune.latency.cost import total
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.probes import probe
from edgeprune.pruning.baseline import Baseline, costs_of, probe_model
from edgeprune.recipe import Target
from edgeprune.runs import write_atomic
from edgeprune.stages.context import Context
from edgeprune.structure.find import find_structure


def probe_stage(context: Context, folder: Path) -> dict[str, Any]:
    recipe = context.recipe
    target = Target.parse(recipe.prune.target)
    if target.unit == "x" and target.value >= 1:  # told before the layers are probed, not after
        raise TargetError(f"the target {target} is not faster than the model", hint="choose a share below 1, as 0.5x")
    if not target.is_latency:
        context.progress.say(f"the target {recipe.prune.target} is counted, not measured: no layer is probed")
    with context.device.lease():
        baseline = probe_model(
            context.model("load"),
            folder,
            device=context.device,
            table=context.table,
            runtime=recipe.device.runtime,
            threads=recipe.device.threads,
            protocol=recipe.device.protocol,
            granularity=channel_multiple(context),
            keep=recipe.prune.keep,
            layers=target.is_latency,
            on_progress=lambda done, total, text: context.progress.update(text, done, total),
        )
    if target.is_latency:
        total(baseline.structure.layers, baseline.structure.sizes, baseline.costs)  # asks for all, and notes what lacks
    for operation, reason in baseline.costs.unmeasured.items():
        context.progress.say(f"not in the table, taken as free: {operation}: {reason}")
    write_atomic(folder / "measurement.json", baseline.measurement.model_dump_json(indent=1).encode())
    m = baseline.measurement
    context.progress.say(
        f"original: {m.median_s * 1e3:.3f} ms ({m.low_s * 1e3:.3f}-{m.high_s * 1e3:.3f}, {m.quality}) "
        f"with {m.runtime.name} {m.runtime.version} on {context.device.id}"
    )
    return {
        "median_s": m.median_s,
        "quality": m.quality,
        "groups": len(baseline.structure.groups),
        "units": sum(baseline.structure.sizes.values()),
        "frozen": {f.name: f.reason for f in baseline.structure.frozen},
    }


def channel_multiple(context: Context) -> int:
    """Widths that the device's kernels like: the recipe's word, else the device profile's."""
    return context.recipe.prune.granularity or profile_of(context.device).channel_multiple


def with_all_costs(context: Context, baseline: Baseline) -> Baseline:
    """The baseline with its layers measured, as far as the table lacks them.

    It does when the probe stage was done for a counted target, or the table was deleted since.
    """
    device, threads = context.device, context.recipe.device.threads
    probe(
        device,
        baseline.structure.layers,
        baseline.structure.sizes,
        context.table,
        runtime=context.recipe.device.runtime,
        threads=threads,
        granularity=channel_multiple(context),
        on_progress=lambda done, total, text: context.progress.update(text, done, total),
    )
    return replace(baseline, costs=costs_of(context.table, device, baseline.measurement, threads))


def read_baseline(context: Context) -> Baseline:
    """The baseline that a finished probe stage left."""
    recipe = context.recipe
    measurement = Measurement.model_validate_json(context.file("probe", "measurement.json").read_bytes())
    fingerprint = context.device.facts().fingerprint
    if measurement.device != fingerprint:
        raise RunError(
            f"this run was probed on another device ({measurement.device}) than {context.device.id} ({fingerprint})",
            where=str(context.run.folder),
            hint="a latency target means one device: go on there, or start a new run here",
        )
    model = context.model("load")
    return Baseline(
        structure=find_structure(model.module, model.example_input(), keep=recipe.prune.keep),
        file=context.file("probe", f"original{SUFFIX_OF[recipe.device.runtime]}"),
        measurement=measurement,
        costs=costs_of(context.table, context.device, measurement, recipe.device.threads),
    )
