"""prune: a plan whose model meets the target, measured; plan + safetensors rebuild it in another process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from edgeprune.errors import TargetError
from edgeprune.latency.baseline import fill_table
from edgeprune.latency.cost import CostModel, MacsCost
from edgeprune.latency.predictor import Prediction, Predictor
from edgeprune.latency.typical import Typical
from edgeprune.methods.gradual import trained_in_turns
from edgeprune.methods.refit import refit
from edgeprune.methods.registry import Candidate, candidate_of, resolved
from edgeprune.methods.scene import Scene
from edgeprune.methods.trials import TRIALS, pick_method
from edgeprune.models.checkpoint import save_state
from edgeprune.recipe import AUTO, PruneSection, Target
from edgeprune.resume import Resumption
from edgeprune.runs import write_atomic
from edgeprune.scratch import scratch_folder
from edgeprune.search.channels import prune_to_latency
from edgeprune.search.measured import Attempt, Goal
from edgeprune.search.problem import OnStep, Shares, cost_of, out_of_reach
from edgeprune.search.pruned import Pruned, prune_within
from edgeprune.search.recount import real_cost, real_macs
from edgeprune.search.target import check_counted, counted_cost, latency_share
from edgeprune.space.apply import make_plan
from edgeprune.space.counting import counted
from edgeprune.space.subnet import WHOLE
from edgeprune.space.units import Structure
from edgeprune.stages.context import Context
from edgeprune.stages.probe import (
    bench_of,
    channel_multiple,
    measurement_of,
    measuring_exporter,
    read_baseline,
    structure_of,
)
from edgeprune.stages.prune_record import record_of
from edgeprune.stages.snapshots import choosing_of, snapshots_of, write_history
from edgeprune.stages.teacher import other_teacher
from edgeprune.target_file import target_file
from edgeprune.training.precision import running

CORRECTIONS = 4  # times that a count is chosen again because the real module has more
ATTEMPTS = TypeAdapter(dict[str, Attempt])


@dataclass(frozen=True)
class _Done:
    """What came of a target: the pruned model, what it was chosen from, and what predicted its latency."""

    pruned: Pruned
    scene: Scene
    candidate: Candidate
    predictor: Predictor | None = None
    counted: tuple[float, float] | None = None  # before and after, in the unit of a counted target


def prune_stage(context: Context, folder: Path) -> dict[str, Any]:
    if not context.recipe.prunes:
        return _as_it_is(context, folder)
    target, judging = Target.parse(context.recipe.prune.target), running(context.recipe.tune.precision)
    if judging.why:
        context.progress.say(f"what goes is chosen on the CPU: {judging.why}")
    if not target.is_latency or target.takes_nothing:
        done = _to_count(context, folder)
    elif context.typical is not None:
        done = _to_prediction(context, context.typical, folder)
    else:
        done = _to_latency(context, folder)
    pruned = done.pruned
    context.progress.say(f"what binds: {pruned.binding.words}")
    subnet = pruned.chosen.subnet
    reconstruction = refit(done.scene, pruned.model.module, done.candidate.model, pruned.structure, subnet)
    if reconstruction is not None:
        context.progress.say(reconstruction.words)
    record = record_of(
        pruned,
        done.predictor,
        done.candidate.settings,
        reconstruction,
        done.counted,
        original_s=measurement_of(context).median_s,
        judged_in=judging.precision,
        file=target_file(context.recipe),
    )
    if record.predicted is not None:
        context.progress.say(_said(record.predicted))
    write_atomic(folder / "plan.json", pruned.plan.model_dump_json(indent=1).encode())
    write_atomic(folder / "prune.json", record.model_dump_json(indent=1).encode())
    save_state(folder / "model.safetensors", pruned.model.module)
    context.keep_model("prune", pruned.model)
    return {
        "measured_share": record.ratio.ratio if record.ratio else None,
        "target_file": record.target_file,
        **({"predicted": _said(record.predicted)} if record.predicted else {}),
        "within_tolerance": record.within_tolerance,
        "method": record.method,
        "allocator": record.allocator,
        "judged_in": record.judged_in,
        "macs": record.macs_after,
        "binds": record.binding.words,
        "parameters": sum(p.numel() for p in pruned.model.module.parameters()),
    }


def _as_it_is(context: Context, folder: Path) -> dict[str, Any]:
    """The empty plan: what later stages take is the model as it was loaded."""
    model = context.model("load")
    plan = make_plan(model.spec.source, model.module, Structure((), (), ()), WHOLE)
    write_atomic(folder / "plan.json", plan.model_dump_json(indent=1).encode())
    save_state(folder / "model.safetensors", model.module)
    context.progress.say("nothing is pruned: the plan is empty")
    return {"pruned": False, "macs": real_macs(model.module, model.example_input()), "parameters": plan.base_parameters}


def _settings(context: Context) -> PruneSection:
    """The recipe's settings, with what it leaves open decided."""
    settings = resolved(context.recipe.prune)
    if settings.branches is None:
        settings = settings.model_copy(update={"branches": not context.splits.train_is_calibration})
        if not settings.branches:
            context.progress.say("no training images: residual branches stay (prune.branches = true lets them go)")
    return settings


def _steps(context: Context, shares: Shares) -> OnStep:
    """Shows how far the allocator has come: the share of the cost that is left, and how many models it has judged."""

    def show(cost: float, judged: int) -> None:
        left = shares.of(cost)
        text = f"choosing what goes: {left:.2f}x so far, {judged} models judged"
        context.progress.update(text, round((1 - left) * 100), 100)

    return show


def _to_latency(context: Context, folder: Path) -> _Done:
    settings, baseline = _settings(context), read_baseline(context)
    target, original_s = Target.parse(settings.target), baseline.measurement.median_s
    share = latency_share(target, original_s)  # a target slower than the model is told before the work
    with measuring_exporter(context) as exporter, scratch_folder("prune") as scratch:
        bench = bench_of(context, exporter)
        with context.lease():
            predictor = fill_table(context.model("load"), baseline, bench)  # the table may be another by now
        scene = _timed_scene(context, baseline.structure, predictor, share, settings.tolerance)
        candidate = _candidate(context, scene, settings, folder)
        goal = Goal(
            target,
            baseline.file,
            original_s,
            settings.tolerance,
            settings.corrections,
            bench,
            lease=lambda: context.lease(again=True),  # others may have the device while the host chooses
        )
        kept, name = Resumption(scene.choosing), "attempts.json"
        known = kept.read(name, ATTEMPTS) or {}

        def keep(attempt: Attempt) -> None:
            known[attempt.name] = attempt
            kept.write(name, known, ATTEMPTS)

        pruned = prune_to_latency(
            candidate.model,
            candidate.allocator(_steps(context, scene.shares)),
            scene.shares,
            goal,
            scratch,
            granularity=bench.granularity,
            halves=settings.granularity is None,
            known=known,
            keep=keep,
        )
        return _Done(pruned, scene, candidate, predictor)


def _to_prediction(context: Context, typical: Typical, folder: Path) -> _Done:
    structure, device, settings = structure_of(context), context.recipe.device, _settings(context)
    precision = target_file(context.recipe).precision
    predictor, _ = typical.predictor(
        structure.layers, structure.sizes, runtime=device.runtime, threads=device.threads, precision=precision
    )
    share = latency_share(Target.parse(settings.target), predictor.unpruned_s)
    scene = _timed_scene(context, structure, predictor, share)
    candidate = _candidate(context, scene, settings, folder)
    allocator = candidate.allocator(_steps(context, scene.shares))
    if (least := scene.shares.of(allocator.smallest().cost)) > share:
        fastest = f"{least * predictor.unpruned_s * 1e3:.3f} ms ({least:.3f}x), as predicted"
        raise out_of_reach(f"the target {settings.target}", fastest)
    budget = predictor.budget(share * predictor.unpruned_s)
    return _Done(prune_within(candidate.model, allocator, budget, scene.shares), scene, candidate, predictor)


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
        whole = wanted = cost_of(paper, WHOLE, costs)
    else:
        costs, wanted = counted_cost(target)
        whole = cost_of(paper, WHOLE, costs)
        check_counted(settings.target, wanted, whole)
    goal = wanted / whole
    scene = _scene(context, paper, costs, Shares(whole, goal))
    candidate = _candidate(context, scene, settings, folder)
    pruned = _counted(context, scene, candidate, wanted)
    cost, before = pruned.chosen.cost, whole
    if not target.takes_nothing:
        before = max(whole, real_cost(candidate.model.module, candidate.model.example_input(), target))
        pruned, cost = _checked(context, scene, candidate, pruned, wanted)
    reached = cost / before
    if reached < goal * (1 - settings.tolerance):
        finer = f"; widths are multiples of {multiple} channels, a lower prune.granularity comes nearer"
        context.progress.say(f"{reached:.3g}x are left, {goal:.3g}x were allowed{finer if multiple > 1 else ''}")
    in_its_unit = None if target.takes_nothing else target.value / wanted
    figures = None if in_its_unit is None else (before * in_its_unit, cost * in_its_unit)
    return _Done(replace(pruned, structure=structure), scene, candidate, counted=figures)


def _counted(context: Context, scene: Scene, candidate: Candidate, budget: float) -> Pruned:
    allocator = candidate.allocator(_steps(context, scene.shares))
    return prune_within(candidate.model, allocator, budget, scene.shares)


def _checked(
    context: Context, scene: Scene, candidate: Candidate, pruned: Pruned, wanted: float
) -> tuple[Pruned, float]:
    """What was chosen on paper, counted on the module that came out; where that is more, chosen again with less.

    Raises:
        TargetError: the real module does not come below the target.
    """
    target, budget = Target.parse(candidate.settings.target), wanted
    for _ in range(CORRECTIONS):
        cost = real_cost(pruned.model.module, pruned.model.example_input(), target)
        if cost <= wanted * (1 + 1e-9):
            return pruned, max(cost, pruned.chosen.cost)
        context.progress.say(f"the pruned model has {cost / wanted:.4g} times what {target} allows: choosing again")
        budget = min(budget, pruned.chosen.cost) - (cost - wanted)
        if budget <= 0:
            break
        pruned = _counted(context, scene, candidate, budget)
    raise TargetError(
        f"the pruned model has {cost / wanted:.4g} times what {target} allows, counted on the model itself",
        hint="choose a higher target: what takes the rest is not among the units that can go (edgeprune show units)",
    )


def _timed_scene(
    context: Context, structure: Structure, predictor: Predictor, goal: float, tolerance: float = 0.0
) -> Scene:
    shares = Shares(predictor.unpruned_s, goal, predictor.constant_s, predictor.scale, tolerance)
    return _scene(context, replace(structure, layers=predictor.layers), predictor.costs, shares)


def _scene(context: Context, structure: Structure, costs: CostModel, shares: Shares) -> Scene:
    return Scene(
        recipe=context.recipe,
        model=context.model("load"),
        splits=context.splits,
        structure=structure,
        costs=costs,
        shares=shares,
        multiple=channel_multiple(context),
        choosing=choosing_of(context),
        training=snapshots_of(context, "prune"),
        progress=context.progress,
        objective=context.objective,
        another=lambda: other_teacher(context),
    )


def _candidate(context: Context, scene: Scene, settings: PruneSection, folder: Path) -> Candidate:
    """What to choose from: the model as it was loaded, or trained by now where the recipe trains while it prunes; by
    the method of the recipe, or the one that does best in trials, which are written down."""
    if settings.squeeze_excitation and not any(branch.gate for branch in scene.structure.branches):
        context.progress.say("prune.squeeze_excitation: the model has no such gate that could go")
    if settings.method == AUTO:
        settings, trials = pick_method(scene, settings)
        write_atomic(folder / TRIALS, trials.model_dump_json(indent=1).encode())
    if not settings.epochs:
        return candidate_of(scene, settings, scene.model)
    trained = trained_in_turns(scene, settings)
    write_history(folder, trained.history)
    return candidate_of(scene, settings, trained.model, trained.gone, trained.seen)
