"""The verdict: every exported file is run where it can run, and its figures are held against the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.artifacts.manifest import Manifest, file_hash
from edgeprune.devices.base import Device
from edgeprune.errors import RunError
from edgeprune.progress import SILENT, Progress
from edgeprune.recipe import Runtime, Target, TargetFile, VerdictLimits
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.task import Rows
from edgeprune.verify.accuracy import accuracy_checks, parity_check, untold
from edgeprune.verify.execute import Execution, Floats, Outputs, run_file, runtime_of
from edgeprune.verify.figures import change_interval, metric_interval
from edgeprune.verify.outputs import Answers, SplitLike, collect_outputs
from edgeprune.verify.shipping import files_to_ship
from edgeprune.verify.speed import (
    Protocol,
    Speed,
    delegation_check,
    latency_check,
    measure_speed,
    memory_check,
    profile_of_file,
    size_check,
)
from edgeprune.verify.verdict import NEVER_RUN, NOWHERE, Check, FileVerdict, Missing, Verdict


def verify(
    *,
    manifests: Sequence[Manifest],
    folder: Path,
    device: Device,
    float_outputs: Callable[[Floats], Outputs] | None,
    test: SplitLike | None,
    limits: VerdictLimits,
    target: Target | None,
    original_file: Path | None,
    runtime: Runtime,
    threads: int,
    protocol: Protocol,
    images: int | None,
    objective: Objective,
    rows: Mapping[str, Rows],
    target_file: TargetFile | None = None,
    untrained: bool = False,
    missing: Sequence[Missing] = (),
    progress: Progress = SILENT,
) -> Verdict:
    """Check every exported file of a folder.

    `float_outputs` maps images (N, C, H, W) float32 to the float model's outputs. Where it or `test` is None, what
    takes it is not asked, and the gates of int8 files that need it are undecided. `original_file` is the unpruned
    model's file in `runtime`, of the precision that the target is about: that of `target_file`, or fp32. `images`
    limits how many test images are used. `objective` says what outputs mean; `rows` has the finished rows of the test
    images of the model of each stage; with the key "original" the drop against it is checked too. Of an `untrained`
    model nothing is asked that chance could not answer. `missing` files fail.

    Raises:
        RunError: there is nothing to check, or a file is missing or was changed since its manifest was written.
        DataError: there are no test images, or a file's outputs do not fit or are NaN.
        UsageError: a file cannot be run, or a target in x comes without the original.
        DeviceError: the device was lost.
    """
    if not manifests:
        raise RunError("there is no exported file to check", where=str(folder), hint="run the export stage first")
    for manifest in manifests:
        check_unchanged(manifest, folder)
    outputs = None
    if test is not None:
        outputs = collect_outputs(
            [manifest for manifest in manifests if runtime_of(manifest) is not None],
            folder,
            device,
            float_outputs,
            test,
            objective,
            images=images,
            threads=threads,
            progress=progress,
        )
    count = outputs.images if outputs is not None else 0
    progress.say("measuring latency")
    speed = measure_speed(
        manifests,
        folder,
        device,
        target=target,
        original_file=original_file,
        runtime=runtime,
        threads=threads,
        protocol=protocol,
        target_file=target_file,
        progress=progress,
    )
    rows = {stage: one[:count] for stage, one in rows.items()}
    original = rows.get("original")
    judge = _Judge(
        folder,
        device,
        limits,
        target,
        target_file,
        runtime,
        threads,
        objective,
        original,
        untrained,
        outputs,
        speed,
        progress,
    )
    files = []
    for manifest in manifests:
        progress.say(f"{manifest.file}: parity, memory and kernels")
        files.append(judge.file(manifest))
    files += [one.verdict for one in missing]
    shipping = files_to_ship(files, first=runtime)
    return _verdict(device.id, objective, rows, files, count).model_copy(update={"shipping": shipping})


def _verdict(
    device: str, objective: Objective, rows: Mapping[str, Rows], files: Sequence[FileVerdict], images: int
) -> Verdict:
    """The files' verdicts together with each stage's metric, and how far it can be trusted."""
    figures = {stage: metric_interval(objective, one) for stage, one in rows.items()}
    original = rows.get("original")
    changes = {
        stage: change_interval(objective, one, original)
        for stage, one in rows.items()
        if original is not None and stage != "original"
    }
    return Verdict(
        device=device,
        test_images=images,
        metric=objective.metric,
        accuracy={stage: figure.value for stage, figure in figures.items()},
        accuracy_intervals={stage: (figure.low, figure.high) for stage, figure in figures.items()},
        changes={stage: (change.low, change.high) for stage, change in changes.items()},
        files=tuple(files),
    )


def check_unchanged(manifest: Manifest, folder: Path) -> None:
    """Check that the file is the one its manifest speaks of.

    Raises:
        RunError: it is missing or was changed.
    """
    file = folder / manifest.file
    if not file.exists():
        raise RunError("the exported file is missing", where=str(file), hint="export the model again")
    if file_hash(file) != manifest.sha256:
        raise RunError(
            "the exported file was changed after it was exported (its sha256 is not the manifest's)",
            where=str(file),
            hint="export the model again; what is verified has to be what was exported",
        )


@dataclass(frozen=True)
class _Judge:
    """Everything that the checks of a file need."""

    folder: Path
    device: Device
    limits: VerdictLimits
    target: Target | None
    target_file: TargetFile | None
    runtime: Runtime
    threads: int
    objective: Objective
    original: Rows | None
    untrained: bool
    outputs: Answers | None
    speed: Speed
    progress: Progress

    def file(self, manifest: Manifest) -> FileVerdict:
        """All checks of one file, in the order in which a reader asks for them."""

        if runtime_of(manifest) is None:
            return self._never_run(manifest)

        places: list[str] = []

        def run(images: Floats) -> Execution:
            ran = run_file(self.device, self.folder / manifest.file, manifest, images, threads=self.threads)
            places.append(ran.executed_on)
            return ran

        checks = (
            parity_check(manifest, self.folder, run, self.limits),
            *self._accuracy(manifest),
            latency_check(
                manifest,
                self.speed,
                target=self.target,
                limits=self.limits,
                runtime=self.runtime,
                target_file=self.target_file,
            ),
            size_check(manifest, self.folder, self.limits),
            memory_check(self.device, manifest, self.folder, self.limits),
            delegation_check(manifest.delegation),
        )
        return FileVerdict(
            file=manifest.file,
            format=manifest.format,
            precision=manifest.precision,
            executed_on=places[0],
            checks=tuple(check for check in checks if check is not None),
            latency=self.speed.latencies.get(manifest.file),
            against_original=self.speed.ratios.get(manifest.file),
            profile=profile_of_file(self.device, manifest, self.folder, threads=self.threads, progress=self.progress),
        )

    def _accuracy(self, manifest: Manifest) -> tuple[Check, ...]:
        if self.outputs is None:
            return untold(manifest, self.objective, self.limits, "there are no test images: name some (--data)")
        return accuracy_checks(
            manifest, self.outputs, self.objective, self.limits, self.original, untrained=self.untrained
        )

    def _never_run(self, manifest: Manifest) -> FileVerdict:
        """What can be said of a file of another's exporter that no runner here knows: nothing that is proven."""
        why = f"no device's runner knows {Path(manifest.file).suffix} files: run and compare it where it is used"
        run = Check(name=NEVER_RUN, value=0, unit="files", limit=1, outcome="undecided", why=why)
        checks = (run, size_check(manifest, self.folder, self.limits), delegation_check(manifest.delegation))
        return FileVerdict(
            file=manifest.file,
            format=manifest.format,
            precision=manifest.precision,
            executed_on=NOWHERE,
            checks=tuple(check for check in checks if check is not None),
        )
