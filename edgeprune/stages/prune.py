"""prune: a plan whose model meets the target, measured; plan + safetensors rebuild it in another process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.latency.cost import MacsCost, total
from edgeprune.latency.measurement import Ratio
from edgeprune.latency.predictor import Predictor
from edgeprune.models.checkpoint import save_state
from edgeprune.pruning.baseline import Baseline, probe_layers
from edgeprune.pruning.prune import Attempt, LatencyLoop, Pruned, prune_counted
from edgeprune.pruning.target import check_counted, counted_cost, latency_share
from edgeprune.recipe import PruneSection, Target
from edgeprune.report.data import Attempt as AttemptRow
from edgeprune.report.data import LayerRow, layer_rows
from edgeprune.runs import write_atomic
from edgeprune.stages.context import Context
from edgeprune.stages.probe import channel_multiple, probing_of, read_baseline
from edgeprune.stages.trials import pick_method
from edgeprune.stages.turns import Budget, Candidate, candidate_of, trained_in_turns
from edgeprune.structure.units import Layer
from edgeprune.training.gradual import NONE_GONE


class PruneRecord(BaseModel):
    """What the prune stage did, for the report and for `edgeprune show`."""

    model_config = ConfigDict(frozen=True)
    target: str
    method: str
    allocator: str = "judged"
    attempts: tuple[AttemptRow, ...]
    ratio: Ratio | None  # of the chosen model over the original, interleaved; None for a counted target
    within_tolerance: bool
    layers: tuple[LayerRow, ...]
    branches: tuple[str, ...]  # residual branches that went as a whole
    macs_before: float
    macs_after: float
    counted_before: float | None  # of a counted target, in its own unit
    counted_after: float | None
    loss: float  # cross entropy of the pruned model on the judged images, batch norms adapted, before re-training


def prune_stage(context: Context, folder: Path) -> dict[str, Any]:
    recipe = context.recipe
    baseline = read_baseline(context)
    if (target := Target.parse(recipe.prune.target)).is_latency:
        latency_share(target, baseline.measurement.median_s)  # a target slower than the model is told before the work
        pruned, predictor, settings = _to_latency(context, baseline, folder)
    else:
        (pruned, settings), predictor = _to_count(context, baseline, folder), None
    record = _record(context, baseline, pruned, predictor, settings)
    write_atomic(folder / "plan.json", pruned.plan.model_dump_json(indent=1).encode())
    write_atomic(folder / "prune.json", record.model_dump_json(indent=1).encode())
    save_state(folder / "model.safetensors", pruned.model.module)
    context.keep_model("prune", pruned.model)
    return {
        "measured_share": record.ratio.ratio if record.ratio else None,
        "within_tolerance": record.within_tolerance,
        "macs": record.macs_after,
        "parameters": sum(p.numel() for p in pruned.model.module.parameters()),
    }


def _settings(context: Context) -> PruneSection:
    """The recipe's settings, with what it leaves open decided."""
    settings = context.recipe.prune
    if settings.branches is None:
        settings = settings.model_copy(update={"branches": not context.splits.train_is_calibration})
        if not settings.branches:
            context.progress.say("no training images: residual branches stay (prune.branches = true lets them go)")
    return settings


def _steps(context: Context) -> Callable[[float], None]:
    """Shows how far the allocator has come: the share of the cost that it has taken away so far."""
    return lambda left: context.progress.update(f"choosing what goes: {left:.2f}x so far", round((1 - left) * 100), 100)


def _to_latency(context: Context, baseline: Baseline, folder: Path) -> tuple[Pruned, Predictor, PruneSection]:
    recipe, settings = context.recipe, _settings(context)
    with MeasuringExporter(recipe.device.runtime) as exporter, tempfile.TemporaryDirectory() as scratch:
        probing = probing_of(context, exporter)
        with context.device.lease():
            predictor = probe_layers(context.model("load"), baseline, probing)  # the table may be another by now
        structure = replace(baseline.structure, layers=predictor.layers)
        goal = latency_share(Target.parse(settings.target), baseline.measurement.median_s)
        budget = Budget(
            structure,
            predictor.costs,
            lambda share: predictor.budget(share * predictor.unpruned_s),
            goal,
            probing.granularity,
        )
        settings = _settled(context, settings, budget, folder)
        now = _candidate(context, settings, budget, folder)
        with context.device.lease():
            loop = LatencyLoop(
                now.model,
                baseline,
                predictor,
                now.ranking,
                now.judge,
                settings,
                probing,
                Path(scratch),
                on_progress=_steps(context),
            )
            return loop.run(), predictor, settings


def _to_count(context: Context, baseline: Baseline, folder: Path) -> tuple[Pruned, PruneSection]:
    settings, structure = _settings(context), baseline.structure
    costs, wanted = counted_cost(Target.parse(settings.target))
    whole = total(structure.layers, structure.sizes, costs)
    multiple = channel_multiple(context)
    check_counted(settings.target, wanted, whole)
    budget = Budget(structure, costs, lambda share: share * whole, wanted / whole, multiple)
    settings = _settled(context, settings, budget, folder)
    now = _candidate(context, settings, budget, folder)
    pruned = prune_counted(
        now.model,
        structure,
        now.ranking,
        now.judge,
        settings,
        multiple=multiple,
        on_progress=_steps(context),
        on_message=context.progress.say,
    )
    return pruned, settings


def _settled(context: Context, settings: PruneSection, budget: Budget, folder: Path) -> PruneSection:
    """The settings with a method: that of the recipe, or the one that does best in trials, which are written down."""
    if settings.method != "auto":
        return settings
    settled, trials = pick_method(context, settings, budget)
    write_atomic(folder / "trials.json", trials.model_dump_json(indent=1).encode())
    return settled


def _candidate(context: Context, settings: PruneSection, budget: Budget, folder: Path) -> Candidate:
    """The model to choose from: as it was loaded, or trained by now where the recipe trains while it prunes."""
    model, gone = context.model("load"), NONE_GONE
    if settings.epochs:
        model, gone = trained_in_turns(context, settings, budget, folder)
    return candidate_of(context, budget.structure, settings, model, gone)


def _record(
    context: Context, baseline: Baseline, pruned: Pruned, predictor: Predictor | None, settings: PruneSection
) -> PruneRecord:
    structure, kept = pruned.structure, pruned.choice.kept
    target = Target.parse(context.recipe.prune.target)
    best = pruned.best
    gone = {name for b in structure.branches if b.id in pruned.choice.branches for name in b.layers}
    stays = [layer for layer in structure.layers if layer.name not in gone]
    return PruneRecord(
        target=str(target),
        method=settings.method,
        allocator=settings.allocator,
        attempts=tuple(
            _row(number, attempt, baseline, target) for number, attempt in enumerate(pruned.attempts, start=1)
        ),
        ratio=best.measured if best else None,
        within_tolerance=best.within_tolerance if best else _counted(target, stays, kept) <= target.value,
        counted_before=None if best else _counted(target, structure.layers, structure.sizes),
        counted_after=None if best else _counted(target, stays, kept),
        layers=layer_rows(structure, kept, predictor.seconds_of if predictor else None, gone=gone),
        macs_before=total(structure.layers, structure.sizes, MacsCost()),
        branches=pruned.choice.branches,
        macs_after=total(stays, kept, MacsCost()),
        loss=pruned.choice.loss,
    )


def _counted(target: Target, layers: Sequence[Layer], kept: Mapping[str, int]) -> float:
    """The figure of a counted target (MACs, parameters, bytes), in the target's own unit."""
    costs, budget = counted_cost(target)
    return total(layers, kept, costs) * target.value / budget


def _row(number: int, attempt: Attempt, baseline: Baseline, target: Target) -> AttemptRow:
    original_s = baseline.measurement.median_s
    return AttemptRow(
        step=number,
        predicted_s=attempt.predicted_share * original_s,
        target_s=latency_share(target, original_s) * original_s,
        ratio=attempt.measured,
        within_tolerance=attempt.within_tolerance,
    )
