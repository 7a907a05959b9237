"""prune: a plan whose model meets the target, measured; plan + safetensors rebuild it in another process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.latency.cost import MacsCost, total
from edgeprune.latency.measurement import Ratio
from edgeprune.latency.predictor import Prediction, Predictor
from edgeprune.latency.typical import Typical
from edgeprune.models.checkpoint import save_state
from edgeprune.pruning.allocate import Scores
from edgeprune.pruning.baseline import probe_layers
from edgeprune.pruning.binding import Binding
from edgeprune.pruning.judge import AdaptedLoss
from edgeprune.pruning.prune import Attempt, LatencyLoop, Pruned, judge_of, prune_counted, prune_predicted, rank
from edgeprune.pruning.target import counted_cost, latency_share
from edgeprune.recipe import PruneSection, Target
from edgeprune.report.data import Attempt as AttemptRow
from edgeprune.report.data import LayerRow, layer_rows
from edgeprune.runs import write_atomic
from edgeprune.stages.context import Context
from edgeprune.stages.probe import channel_multiple, measurement_of, probing_of, read_baseline, structure_of
from edgeprune.structure.units import Layer, Structure


class PruneRecord(BaseModel):
    """What the prune stage did, for the report and for `edgeprune show`."""

    model_config = ConfigDict(frozen=True)
    target: str
    method: str
    attempts: tuple[AttemptRow, ...]
    ratio: Ratio | None  # of the chosen model over the original, interleaved; None for a counted target
    within_tolerance: bool | None  # None: a latency that was only predicted
    layers: tuple[LayerRow, ...]
    branches: tuple[str, ...]  # residual branches that went as a whole
    macs_before: float
    macs_after: float
    predicted: Prediction | None  # of a latency that was only predicted, from typical tables
    counted_before: float | None  # of a counted target, in its own unit
    counted_after: float | None
    binding: Binding  # what keeps it from being cheaper
    loss: float  # cross entropy of the pruned model on the judged images, batch norms adapted, before re-training


def prune_stage(context: Context, folder: Path) -> dict[str, Any]:
    target = Target.parse(context.recipe.prune.target)
    predictor: Predictor | None = None
    if not target.is_latency:
        pruned = _to_count(context)
    elif context.typical is not None:
        pruned, predictor = _to_prediction(context, context.typical)
    else:
        pruned, predictor = _to_latency(context)
    context.progress.say(f"what binds: {pruned.binding.words}")
    record = _record(context, pruned, predictor)
    if record.predicted is not None:
        context.progress.say(_said(record.predicted))
    write_atomic(folder / "plan.json", pruned.plan.model_dump_json(indent=1).encode())
    write_atomic(folder / "prune.json", record.model_dump_json(indent=1).encode())
    save_state(folder / "model.safetensors", pruned.model.module)
    context.keep_model("prune", pruned.model)
    return {
        "measured_share": record.ratio.ratio if record.ratio else None,
        **({"predicted": _said(record.predicted)} if record.predicted else {}),
        "within_tolerance": record.within_tolerance,
        "macs": record.macs_after,
        "binds": record.binding.words,
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


def _to_latency(context: Context) -> tuple[Pruned, Predictor]:
    recipe, model, baseline = context.recipe, context.model("load"), read_baseline(context)
    # A target slower than the model is told before the work.
    latency_share(Target.parse(recipe.prune.target), baseline.measurement.median_s)
    settings = _settings(context)
    with MeasuringExporter(recipe.device.runtime) as exporter, tempfile.TemporaryDirectory() as scratch:
        probing = probing_of(context, exporter)
        with context.device.lease():
            predictor = probe_layers(model, baseline, probing)  # the table may be another by now
        ranks, judge = _ranks(context, baseline.structure, settings), _judge(context, baseline.structure, settings)
        with context.device.lease():
            loop = LatencyLoop(
                model,
                baseline,
                predictor,
                ranks,
                judge,
                settings,
                probing,
                Path(scratch),
                on_progress=_steps(context),
            )
            return loop.run(), predictor


def _to_prediction(context: Context, typical: Typical) -> tuple[Pruned, Predictor]:
    structure, device, settings = structure_of(context), context.recipe.device, _settings(context)
    predictor, _ = typical.predictor(structure.layers, structure.sizes, runtime=device.runtime, threads=device.threads)
    pruned = prune_predicted(
        context.model("load"),
        structure,
        predictor,
        _ranks(context, structure, settings),
        _judge(context, structure, settings),
        settings,
        multiple=channel_multiple(context),
        on_progress=_steps(context),
    )
    return pruned, predictor


def _said(predicted: Prediction) -> str:
    share = predicted.seconds / predicted.unpruned_s
    return f"{share:.3f}x, {predicted.words}, predicted from {predicted.basis}"


def _to_count(context: Context) -> Pruned:
    structure = structure_of(context) if context.typical else read_baseline(context).structure
    settings = _settings(context)
    return prune_counted(
        context.model("load"),
        structure,
        _ranks(context, structure, settings),
        _judge(context, structure, settings),
        settings,
        multiple=channel_multiple(context),
        on_progress=_steps(context),
    )


def _ranks(context: Context, structure: Structure, settings: PruneSection) -> Scores:
    recipe = context.recipe
    context.progress.update(f"ranking units by {recipe.prune.method}", 0, 1)
    return rank(context.model("load"), structure, settings, context.splits.train, seed=recipe.seed)


def _judge(context: Context, structure: Structure, settings: PruneSection) -> AdaptedLoss:
    recipe, train = context.recipe, context.splits.train
    return judge_of(context.model("load"), structure, settings, recipe.tune, train, seed=recipe.seed)


def _record(context: Context, pruned: Pruned, predictor: Predictor | None) -> PruneRecord:
    structure, kept = pruned.structure, pruned.choice.kept
    target, best = Target.parse(context.recipe.prune.target), pruned.best
    original_s, counts = measurement_of(context).median_s, not target.is_latency
    gone = {name for b in structure.branches if b.id in pruned.choice.branches for name in b.layers}
    stays = [layer for layer in structure.layers if layer.name not in gone]
    return PruneRecord(
        target=str(target),
        method=context.recipe.prune.method,
        attempts=tuple(
            _row(number, attempt, original_s, target) for number, attempt in enumerate(pruned.attempts, start=1)
        ),
        ratio=best.measured if best else None,
        within_tolerance=_met(target, stays, kept) if counts else best.within_tolerance if best else None,
        predicted=None if best or predictor is None else predictor.predict(kept, gone),
        counted_before=_counted(target, structure.layers, structure.sizes) if counts else None,
        counted_after=_counted(target, stays, kept) if counts else None,
        layers=layer_rows(structure, kept, predictor.seconds_of if predictor else None, gone=gone),
        macs_before=total(structure.layers, structure.sizes, MacsCost()),
        branches=pruned.choice.branches,
        macs_after=total(stays, kept, MacsCost()),
        binding=pruned.binding,
        loss=pruned.choice.loss,
    )


def _counted(target: Target, layers: Sequence[Layer], kept: Mapping[str, int]) -> float:
    """The figure of a counted target (MACs, parameters, bytes), in the target's own unit."""
    costs, budget = counted_cost(target)
    return total(layers, kept, costs) * target.value / budget


def _met(target: Target, layers: Sequence[Layer], kept: Mapping[str, int]) -> bool:
    return _counted(target, layers, kept) <= target.value


def _row(number: int, attempt: Attempt, original_s: float, target: Target) -> AttemptRow:
    return AttemptRow(
        step=number,
        predicted_s=attempt.predicted_share * original_s,
        target_s=latency_share(target, original_s) * original_s,
        ratio=attempt.measured,
        within_tolerance=attempt.within_tolerance,
    )
