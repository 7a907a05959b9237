"""prune: a plan whose model meets the target, measured; plan + safetensors rebuild it in another process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.errors import TargetError
from edgeprune.latency.baseline import probe_layers
from edgeprune.latency.cost import CostModel, MacsCost, total
from edgeprune.latency.predictor import Prediction, Predictor
from edgeprune.latency.typical import Typical
from edgeprune.methods.registry import Candidate
from edgeprune.models.checkpoint import save_state
from edgeprune.recipe import PruneSection, Target
from edgeprune.runs import write_atomic
from edgeprune.scratch import scratch_folder
from edgeprune.search.measured import LatencyLoop, Pruned, prune_counted, prune_predicted
from edgeprune.search.path import OnStep
from edgeprune.search.recount import real_cost
from edgeprune.search.target import check_counted, counted_cost, latency_share
from edgeprune.space.counting import counted
from edgeprune.space.units import Structure
from edgeprune.stages.context import Context
from edgeprune.stages.probe import channel_multiple, measurement_of, probing_of, read_baseline, structure_of
from edgeprune.stages.prune_record import record_of
from edgeprune.stages.settle import settle
from edgeprune.stages.trials import TRIALS, pick_method
from edgeprune.stages.turns import Budget, candidate_of, trained_in_turns
from edgeprune.training.gradual import NONE_GONE

CORRECTIONS = 4  # times that a count is chosen again because the real module has more


@dataclass(frozen=True)
class _Done:
    """What came of a target: the pruned model, what it was chosen from, and what predicted its latency."""

    pruned: Pruned
    candidate: Candidate
    predictor: Predictor | None = None
    counted: tuple[float, float] | None = None  # before and after, in the unit of a counted target


def prune_stage(context: Context, folder: Path) -> dict[str, Any]:
    target = Target.parse(context.recipe.prune.target)
    if not target.is_latency or target.takes_nothing:
        done = _to_count(context, folder)
    elif context.typical is not None:
        done = _to_prediction(context, context.typical, folder)
    else:
        done = _to_latency(context, folder)
    pruned = done.pruned
    context.progress.say(f"what binds: {pruned.binding.words}")
    reconstruction = settle(context, pruned.model.module, done.candidate.model, pruned.structure, pruned.choice)
    if reconstruction is not None:
        context.progress.say(reconstruction.words)
    original_s = measurement_of(context).median_s
    record = record_of(
        pruned, done.predictor, done.candidate.settings, reconstruction, done.counted, original_s=original_s
    )
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
        "method": record.method,
        "allocator": record.allocator,
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


def _steps(context: Context) -> OnStep:
    """Shows how far the allocator has come: the share of the cost that is left, and how many models it has judged."""

    def show(left: float, judged: int) -> None:
        text = f"choosing what goes: {left:.2f}x so far, {judged} models judged"
        context.progress.update(text, round((1 - left) * 100), 100)

    return show


def _to_latency(context: Context, folder: Path) -> _Done:
    recipe, settings, baseline = context.recipe, _settings(context), read_baseline(context)
    # A target slower than the model is told before the work.
    goal = latency_share(Target.parse(settings.target), baseline.measurement.median_s)
    with MeasuringExporter(recipe.device.runtime) as exporter, scratch_folder("prune") as scratch:
        probing = probing_of(context, exporter)
        with context.lease():
            predictor = probe_layers(context.model("load"), baseline, probing)  # the table may be another by now
        budget = _latency_budget(baseline.structure, predictor, goal, probing.granularity, settings.tolerance)
        candidate = _candidate(context, settings, budget, folder)
        loop = LatencyLoop(
            candidate,
            baseline,
            predictor,
            probing,
            scratch,
            lease=lambda: context.lease(again=True),  # others may have the device while the host chooses
            on_progress=_steps(context),
        )
        return _Done(loop.run(), candidate, predictor)


def _to_prediction(context: Context, typical: Typical, folder: Path) -> _Done:
    structure, device, settings = structure_of(context), context.recipe.device, _settings(context)
    predictor, _ = typical.predictor(structure.layers, structure.sizes, runtime=device.runtime, threads=device.threads)
    goal = latency_share(Target.parse(settings.target), predictor.unpruned_s)
    multiple = channel_multiple(context)
    candidate = _candidate(context, settings, _latency_budget(structure, predictor, goal, multiple), folder)
    return _Done(prune_predicted(candidate, predictor, on_progress=_steps(context)), candidate, predictor)


def _said(predicted: Prediction) -> str:
    share = predicted.seconds / predicted.unpruned_s
    return f"{share:.3f}x, {predicted.words}, predicted from {predicted.basis}"


def _to_count(context: Context, folder: Path) -> _Done:
    structure = structure_of(context) if context.typical else read_baseline(context).structure
    settings, multiple = _settings(context), channel_multiple(context)
    target = Target.parse(settings.target)
    for operator in structure.uncounted:
        context.progress.say(f"not counted: {operator}")
    paper = counted(structure, parameters=not target.takes_nothing and "MACs" not in target.unit)
    if target.takes_nothing:
        settings = settings.model_copy(update={"allocator": "judged"})  # which answers with the model as it is
        costs: CostModel = MacsCost()
        whole = wanted = total(paper.layers, structure.sizes, costs)
    else:
        costs, wanted = counted_cost(target)
        whole = total(paper.layers, structure.sizes, costs)
        check_counted(settings.target, wanted, whole)
    goal = wanted / whole
    budget = Budget(paper, costs, lambda share: share * whole, lambda cost: cost / whole, goal, multiple)
    candidate = _candidate(context, settings, budget, folder)
    pruned = prune_counted(candidate, costs, wanted, on_progress=_steps(context))
    cost, before = pruned.choice.cost, whole
    if not target.takes_nothing:
        before = max(whole, real_cost(candidate.model.module, candidate.model.example_input(), target))
        pruned, cost = _checked(context, candidate, pruned, costs, wanted)
    reached = cost / before
    if reached < goal * (1 - settings.tolerance):
        finer = f"; widths are multiples of {multiple} channels, a lower prune.granularity comes nearer"
        context.progress.say(f"{reached:.3g}x are left, {goal:.3g}x were allowed{finer if multiple > 1 else ''}")
    in_its_unit = None if target.takes_nothing else target.value / wanted
    figures = None if in_its_unit is None else (before * in_its_unit, cost * in_its_unit)
    return _Done(replace(pruned, structure=structure), candidate, counted=figures)


def _checked(
    context: Context, candidate: Candidate, pruned: Pruned, costs: CostModel, wanted: float
) -> tuple[Pruned, float]:
    """What was chosen on paper, counted on the module that came out; where that is more, chosen again with less.

    Raises:
        TargetError: the real module does not come below the target.
    """
    target, budget = Target.parse(candidate.settings.target), wanted
    for _ in range(CORRECTIONS):
        cost = real_cost(pruned.model.module, pruned.model.example_input(), target)
        if cost <= wanted * (1 + 1e-9):
            return pruned, max(cost, pruned.choice.cost)
        context.progress.say(f"the pruned model has {cost / wanted:.4g} times what {target} allows: choosing again")
        budget = min(budget, pruned.choice.cost) - (cost - wanted)
        if budget <= 0:
            break
        pruned = prune_counted(candidate, costs, budget, on_progress=_steps(context))
    raise TargetError(
        f"the pruned model has {cost / wanted:.4g} times what {target} allows, counted on the model itself",
        hint="choose a higher target: what takes the rest is not among the units that can go (edgeprune show units)",
    )


def _latency_budget(
    structure: Structure, predictor: Predictor, goal: float, multiple: int, tolerance: float = 0.0
) -> Budget:
    return Budget(
        replace(structure, layers=predictor.layers),
        predictor.costs,
        lambda share: predictor.budget(share * predictor.unpruned_s),
        lambda cost: predictor.whole(cost) / predictor.unpruned_s,
        goal,
        multiple,
        tolerance,
    )


def _candidate(context: Context, settings: PruneSection, budget: Budget, folder: Path) -> Candidate:
    """What to choose from: the model as it was loaded, or trained by now where the recipe trains while it prunes; by
    the method of the recipe, or the one that does best in trials, which are written down."""
    if settings.squeeze_excitation and not any(branch.gate for branch in budget.structure.branches):
        context.progress.say("prune.squeeze_excitation: the model has no such gate that could go")
    if settings.method == "auto":
        settings, trials = pick_method(context, settings, budget)
        write_atomic(folder / TRIALS, trials.model_dump_json(indent=1).encode())
    model, gone = context.model("load"), NONE_GONE
    if settings.epochs:
        model, gone = trained_in_turns(context, settings, budget, folder)
    return candidate_of(context, budget, settings, model, gone)
