"""report: gather what the stages wrote into one page, one JSON and one JUnit file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from edgeprune.latency.measurement import Measurement, Ratio
from edgeprune.methods.trials import TRIALS, Trials
from edgeprune.recipe import TargetFile
from edgeprune.report.data import Epoch, MergeFacts, ReportData, StagePoint, TargetOutcome
from edgeprune.report.names import published_device, published_recipe, published_spec, without_address
from edgeprune.report.write import write_report
from edgeprune.runs import read_as
from edgeprune.search.zeros import LAYERS, Zeros
from edgeprune.stages.context import Context
from edgeprune.stages.export import read_manifests
from edgeprune.stages.probe import measurement_of
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.stages.snapshots import HISTORY, read_history
from edgeprune.stages.zeros import read_zeros, words_of_zeros
from edgeprune.target_file import said
from edgeprune.verify.looks import SHOWN, SHOWN_KIND, Shown
from edgeprune.verify.verdict import Verdict


def report_stage(context: Context, folder: Path) -> dict[str, Any]:
    page = write_report(gather(context), folder)
    return {"page": page.name}


def gather(context: Context) -> ReportData:
    """Everything the report shows, from the files of a run whose verify stage is finished."""
    run, recipe = context.run, context.recipe
    pruned = context.read("prune", "prune.json", PruneRecord) if recipe.prunes else None
    verdict = context.read("verify", "verdict.json", Verdict)
    measurement = measurement_of(context)
    zeros = read_zeros(context)
    spec = published_spec(context.spec)  # a page is passed on: it need not tell where files lay
    goal = f"to {zeros.target if zeros else recipe.prune.target}" if pruned else "as it is"
    data = ReportData(
        title=f"{spec.source} {goal} on {recipe.device.id}",
        spec=spec,
        device=published_device(context.device.facts()),
        recipe=published_recipe(recipe),
        pruned=pruned is not None,
        target=_target_of_zeros(zeros) if zeros else _target(pruned) if pruned else None,
        stages=_points(context, pruned, verdict, measurement),
        against_original=pruned.ratio if pruned else None,
        layers=pruned.layers if pruned else (),
        attempts=pruned.attempts if pruned else (),
        tolerance=recipe.prune.tolerance if pruned else None,
        binding=pruned.binding if pruned else None,
        tuning=_epochs(context),
        kept_epoch=_kept(context),
        merge=context.read("merge", "merge.json", MergeFacts),
        verdict=verdict,
        manifests=tuple(read_manifests(run.stage_folder("export"))),
        versions=run.info.versions,
        seed=recipe.seed,
        created=datetime.datetime.fromtimestamp(measurement.after.time, datetime.UTC).isoformat(timespec="seconds"),
        timings={s.name: done.seconds for s in context.pipeline.before("report") if (done := run.record(s.name))},
        notes=_notes(context, pruned, verdict),
        shown=_shown(context),
    )
    return without_address(data, recipe.device.id)


def _target(pruned: PruneRecord) -> TargetOutcome:
    if pruned.ratio is None and pruned.counted_after is None:
        return TargetOutcome(target=pruned.target, reached="no channel pruned", met=True, why="zeros are all there is")
    if pruned.ratio is None:
        return TargetOutcome(
            target=pruned.target,
            reached=f"{pruned.counted_after:.5g} of {pruned.counted_before:.5g}",
            met=pruned.within_tolerance is True,
            why="counted on the model, not measured",
        )
    reached, why = _measured(pruned.ratio)
    if pruned.target_file is not None:
        why += f"; of {TargetFile.parse(pruned.target_file).words} and the original in the same precision"
    if pruned.nothing_nearer:
        why += "; faster than asked: nothing between it and the target loses less"
    met = pruned.within_tolerance is True or pruned.nothing_nearer
    return TargetOutcome(target=pruned.target, reached=reached, met=met, why=why)


def _target_of_zeros(zeros: Zeros) -> TargetOutcome:
    """Of the zeros' target: it is what the run is for; what channels reached stands among the attempts."""
    share = f"{zeros.zeros:.1%} of {LAYERS[zeros.layers]}' {zeros.of} at zero"
    if zeros.best is None:
        return TargetOutcome(target=zeros.target, reached=share, met=True, why="counted on the model, not measured")
    reached, why = _measured(zeros.best.ratio)
    if zeros.fewest:
        why += "; faster than asked: fewer zeros do not run sparsely"
    met = zeros.within_tolerance or zeros.fewest
    return TargetOutcome(target=zeros.target, reached=reached, met=met, why=f"{share}; {why}")


def _measured(ratio: Ratio) -> tuple[str, str]:
    """What was reached, and how that is known."""
    why = f"interleaved with the original, 95 % interval {ratio.low:.3f}-{ratio.high:.3f}x, {ratio.quality}"
    return f"{ratio.ratio:.3f}x, {ratio.numerator.median_s * 1e3:.3f} ms", why


def _points(
    context: Context, pruned: PruneRecord | None, verdict: Verdict, original: Measurement
) -> tuple[StagePoint, ...]:
    """Accuracy and latency after each stage. Tuning and merging change no width: they keep the pruned latency, and
    where nothing was pruned the original's."""
    later = original if pruned is None else pruned.ratio.numerator if pruned.ratio else None
    if pruned is None:
        record = context.run.record("prune")
        before = after = record.result["macs"] if record else None
    else:
        before, after = round(pruned.macs_before), round(pruned.macs_after)
    parameters = _parameters(context)
    points = [
        StagePoint(
            stage=stage,
            accuracy=accuracy,
            metric=verdict.metric,
            interval=verdict.accuracy_intervals.get(stage),
            images=verdict.test_images,
            change=verdict.changes.get(stage),
            latency=original if stage == "original" else later,
            macs=before if stage == "original" else after,
            parameters=parameters.get(stage),
        )
        for stage, accuracy in verdict.accuracy.items()
    ]
    for file in verdict.files:
        check = next((c for c in file.checks if c.name == verdict.metric.name), None)
        points.append(
            StagePoint(
                stage=f"{file.format} {file.precision}",
                accuracy=check.value if check else None,
                metric=verdict.metric,
                interval=check.interval if check else None,
                images=verdict.test_images if check else None,
                latency=file.latency or (file.against_original.numerator if file.against_original else None),
            )
        )
    return tuple(points)


def _parameters(context: Context) -> dict[str, int | None]:
    """How many each model has; a stage that does not tell has changed no width."""
    told: dict[str, int | None] = {}
    last: int | None = None
    for word, stage in context.pipeline.models().items():
        record = context.run.record(stage)
        last = record.result.get("parameters", last) if record else last
        told[word] = last
    return told


def _epochs(context: Context) -> tuple[Epoch, ...]:
    """Of the whole training: that while the model was pruned, where there was one, and re-training."""
    files = [context.run.stage_folder("prune") / HISTORY, context.file("tune", HISTORY)]
    records = (record for file in files if file.exists() for record in read_history(file))
    return tuple(
        Epoch(
            epoch=r.epoch,
            loss=r.loss,
            train_accuracy=r.train,
            validation_accuracy=r.validation,
            lr=r.lr,
            seconds=r.seconds,
        )
        for r in records
    )


def _kept(context: Context) -> int | None:
    """The epoch that tuning kept; None where an earlier version did not choose."""
    record = context.run.record("tune")
    return record.result.get("kept") if record else None


def _shown(context: Context) -> tuple[Shown, ...]:
    """Test images with answers; none where an earlier version verified."""
    path = context.run.stage_folder("verify") / SHOWN
    return read_as(path, SHOWN_KIND) if path.exists() else ()


def _notes(context: Context, pruned: PruneRecord | None, verdict: Verdict) -> tuple[str, ...]:
    about = pruned is not None and pruned.target_file is not None
    notes = [f"T{said(context.recipe)[1:]}."] if about else []
    notes += [f"{f.file}: {f.executed_on}" for f in verdict.files if "no device" in f.executed_on]
    if pruned is None:
        trained = context.recipe.tune.epochs
        notes.insert(0, f"Nothing was pruned; {f'trained for {trained} epochs' if trained else 'nothing was trained'}.")
    elif context.recipe.prune.method == "auto":
        trials = context.read("prune", TRIALS, Trials)
        notes.append(trials.words(f"{pruned.method} ({pruned.allocator})"))
    if pruned is not None and pruned.reconstruction is not None:
        notes.append(f"Before re-training: {pruned.reconstruction.words}.")
    if context.splits.train_is_calibration and (pruned or context.recipe.tune.epochs):
        notes.append("There are no training images: the model was scored and tuned on the calibration images.")
    tuned = context.run.record("tune")
    if tuned is not None and "zeros_by_layer" in tuned.result:
        notes.append(f"{words_of_zeros(tuned.result)}.")
    exported = context.run.record("export")
    if exported is not None and "sparse" in exported.result:
        sparse = exported.result["sparse"]
        notes.append(f"The fp32 .tflite file is {sparse['kept']}: {sparse['why']}.")
    return tuple(notes)
