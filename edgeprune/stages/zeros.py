"""The weights that stay where a recipe asks for zeros, and the share of zeros that its target takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.recipe import Target
from edgeprune.resume import Resumption
from edgeprune.runs import settings_hash, write_atomic
from edgeprune.scratch import scratch_folder
from edgeprune.search.measured import Attempt, Goal
from edgeprune.search.zeros import Zeros, check_zeros_are_needed, counted_zeros, masks_of, zeros_for_latency
from edgeprune.space.weight_masks import Masks
from edgeprune.stages.context import Context
from edgeprune.stages.probe import bench_of, read_baseline
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.stages.snapshots import snapshots_of

FILE, ATTEMPTS = "zeros.json", "measured.json"
_ATTEMPTS = TypeAdapter(dict[str, Attempt])


def masks_for(context: Context, folder: Path) -> Masks | None:
    """The weights of the pruned model that stay, None where the recipe asks for no zeros. What a target takes is
    written down in the folder; an interrupted stage does not measure it again."""
    sparse, pruned = context.recipe.sparse, context.model("prune")
    if sparse.target is None:
        return masks_of(pruned, sparse, sparse.zeros) if sparse.zeros else None
    kept = _search(context)
    found = kept.read(FILE, Zeros)
    if found is None:
        found = _find(context, sparse.target)
        kept.write(FILE, found)
    write_atomic(folder / FILE, found.model_dump_json(indent=1).encode())
    context.progress.say(found.words)
    return masks_of(pruned, sparse, found.zeros)


def read_zeros(context: Context) -> Zeros | None:
    """What a target of zeros took, as a finished tune stage left it; None where there is no such target."""
    if context.recipe.sparse.target is None:
        return None
    return context.read("tune", FILE, Zeros)


def words_of_zeros(told: Mapping[str, Any]) -> str:
    """How many zeros there are, in words without a full stop, from the result of a tune stage."""
    layers: Mapping[str, float] = told["zeros_by_layer"]
    least, most = min(layers, key=layers.__getitem__), max(layers, key=layers.__getitem__)
    said = f"{told['zeros']:.1%} of the weights of {len(layers)} layers are zeros"
    if len(layers) > 1:
        said += f", from {layers[least]:.1%} ({least}) to {layers[most]:.1%} ({most})"
    return said


def _search(context: Context) -> Resumption:
    """What a search has measured and found: on this device, to this tolerance."""
    return Resumption(snapshots_of(context, "tune"), "zeros", settings_hash(context.recipe, ("prune", "device")))


def _find(context: Context, text: str) -> Zeros:
    recipe, pruned, target = context.recipe, context.model("prune"), Target.parse(text)
    record = context.read("prune", "prune.json", PruneRecord)
    if not target.is_latency:
        return counted_zeros(pruned, recipe.sparse, record.macs_after)
    baseline = read_baseline(context)
    kept = _search(context)
    known = kept.read(ATTEMPTS, _ATTEMPTS) or {}

    def keep(attempt: Attempt) -> None:
        known[attempt.name] = attempt
        kept.write(ATTEMPTS, known, _ATTEMPTS)

    with (
        context.lease(),
        MeasuringExporter(recipe.device.runtime) as exporter,
        scratch_folder("zeros") as scratch,
    ):
        goal = Goal(
            target,
            baseline.file,
            baseline.measurement.median_s,
            recipe.prune.tolerance,
            recipe.prune.corrections,
            bench_of(context, exporter),
            where="sparse.target",
        )
        if not Target.parse(recipe.prune.target).takes_nothing:
            check_zeros_are_needed(pruned, goal, record.ratio, scratch)
        return zeros_for_latency(pruned, recipe.sparse, goal, scratch, known=known, keep=keep)
