"""What a report shows: one frozen tree, filled by the pipeline, written as JSON and rendered as a page.

Nothing here is computed twice: latencies come as measurements and interleaved ratios, checks as the verdict.
What is derived (speed-up, standing of a file, interval of an accuracy) is derived here, once, for the page, the
terminal and JUnit alike.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeprune.artifacts.manifest import Manifest
from edgeprune.devices.base import DeviceFacts
from edgeprune.errors import RunError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.measurement import Measurement, Ratio
from edgeprune.latency.profile import Kernel
from edgeprune.metric import ACCURACY, Metric
from edgeprune.models.spec import ModelSpec
from edgeprune.records import first_fault
from edgeprune.runs import read_bounded
from edgeprune.search.constraints import Binding
from edgeprune.space.units import Structure
from edgeprune.verify.intervals import share_interval
from edgeprune.verify.looks import Shown
from edgeprune.verify.verdict import NO_DEVICE, NOWHERE, Between, FileVerdict, Shipping, Verdict

Standing = Literal["proven", "reference", "failed", "uncertain", "undecided", "unproven"]
DEAREST = 12  # kernels shown of a file


class Part(BaseModel):
    """A part of the report: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StagePoint(Part):
    """The model that a stage left, by the stage's one word for it (`pruned`), or a file such as `tflite int8`.

    `accuracy` is the metric on `images` test images (of a classifier top-1 as a share, 0..1), `interval` its 95 %
    interval, `change` that of how much better it is than the original's, on the same images; latency is of one
    inference.
    """

    stage: str
    accuracy: float | None = None
    metric: Metric = ACCURACY
    interval: Between | None = None
    images: int | None = Field(default=None, ge=1)
    change: Between | None = None
    latency: Measurement | None = None
    macs: int | None = Field(default=None, ge=0)
    parameters: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _a_share_is_one(self) -> StagePoint:
        if self.metric.unit == "share" and self.accuracy is not None and not 0 <= self.accuracy <= 1:
            raise ValueError(f"{self.metric.name} is a share, from 0 to 1, not {self.accuracy}")
        return self

    @property
    def is_file(self) -> bool:
        return " " in self.stage

    @property
    def accuracy_interval(self) -> tuple[float, float] | None:
        """95 % interval of the metric; None where nobody told it."""
        if self.accuracy is None or self.interval is not None:
            return self.interval
        if self.images is None or self.metric != ACCURACY:
            return None
        found = share_interval(self.accuracy * self.images, self.images)
        return found.low, found.high


class LayerRow(Part):
    """One layer before and after pruning. Widths are output channels, costs seconds of one inference."""

    name: str
    operation: str
    width_before: int
    width_after: int
    cost_before_s: float | None = None
    cost_after_s: float | None = None
    macs_before: int = 0
    macs_after: int = 0
    inputs_before: int | None = None
    inputs_after: int | None = None


class Attempt(Part):
    """One step of the prune loop: a plan was predicted, built, exported and measured against the target.

    Give `ratio` (pruned over original, interleaved) when the target is a share of the original, else `measured`.
    `target_s` is the target in seconds as it stood at this step.
    """

    step: int
    predicted_s: float
    target_s: float
    measured: Measurement | None = None
    ratio: Ratio | None = None
    within_tolerance: bool

    @property
    def measurement(self) -> Measurement | None:
        return self.measured if self.measured is not None else (self.ratio.numerator if self.ratio else None)


class Epoch(Part):
    """One epoch of tuning; accuracies are the metric, that on training images as they were trained on."""

    epoch: int
    loss: float
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    lr: float
    seconds: float


class TargetOutcome(Part):
    """The target as the recipe says it (`0.5x`, `8ms`, ...), what was reached in the same words, and if it is met."""

    target: str
    reached: str
    met: bool
    why: str = ""


class MergeFacts(Part):
    """What merging folded, and the proof that the merged model answers the same."""

    merged: tuple[str, ...] = ()  # what was folded, by layer name
    skipped: dict[str, str] = {}  # layer -> why it was left
    largest_difference: float  # max |merged - before| over the outputs, in the outputs' unit
    limit: float | None = None
    passed: bool
    checked_on: str = ""  # e.g. "8 random inputs, float64"


class ReportData(Part):
    """Everything one run's report shows."""

    version: Literal[1] = 1
    title: str
    spec: ModelSpec
    device: DeviceFacts | None = None
    recipe: str = ""  # the recipe's text
    pruned: bool = True  # whether anything was to go from the model
    target: TargetOutcome | None = None
    stages: tuple[StagePoint, ...] = ()
    against_original: Ratio | None = None  # pruned float model over the original, interleaved; carries both samples
    layers: tuple[LayerRow, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    tolerance: float | None = None  # of the prune loop, as a share of the target
    binding: Binding | None = None  # what keeps the pruned model from being cheaper
    tuning: tuple[Epoch, ...] = ()
    kept_epoch: int | None = None  # of them, whose model is the tuned one; 0 for the one before the first
    merge: MergeFacts | None = None
    verdict: Verdict | None = None
    manifests: tuple[Manifest, ...] = ()
    versions: dict[str, str] = {}
    seed: int = 0
    created: str = ""  # ISO 8601; the pipeline says when, so that the same data makes the same files
    timings: dict[str, float] = {}  # stage -> seconds
    notes: tuple[str, ...] = ()
    shown: tuple[Shown, ...] = ()  # test images with answers

    @model_validator(mode="before")
    @classmethod
    def _without_command(cls, tree: Any) -> Any:
        """Reports of before held the command that made them, with all that its user typed."""
        return {key: value for key, value in tree.items() if key != "command"} if isinstance(tree, Mapping) else tree

    @property
    def metric(self) -> Metric:
        """What accuracies are."""
        return self.verdict.metric if self.verdict else ACCURACY

    def stage(self, name: str) -> StagePoint | None:
        return next((point for point in self.stages if point.stage == name), None)

    @property
    def shipping(self) -> tuple[Shipping, ...]:
        """The file to ship for each runtime; none in reports of before."""
        return self.verdict.shipping if self.verdict else ()

    @property
    def final(self) -> StagePoint | None:
        """The last float model whose accuracy is known, unless that is the original."""
        known = [point for point in self.stages if not point.is_file and point.accuracy is not None]
        return known[-1] if known and known[-1].stage != "original" else None

    @property
    def files(self) -> tuple[FileLine, ...]:
        """Every file that was exported or checked, each with its manifest and verdict where there is one."""
        verdicts = {_key(v.format, v.precision, v.file): v for v in (self.verdict.files if self.verdict else ())}
        manifests = {_key(m.format, m.precision, m.file): m for m in self.manifests}
        return tuple(
            FileLine(file=key[2], manifest=manifests.get(key), verdict=verdicts.get(key))
            for key in dict.fromkeys((*manifests, *verdicts))
        )


class FileLine(Part):
    """An exported file with what is known of it and what was checked of it."""

    file: str
    manifest: Manifest | None
    verdict: FileVerdict | None

    @property
    def format(self) -> str:
        known = self.manifest or self.verdict
        return known.format if known else ""

    @property
    def precision(self) -> str:
        known = self.manifest or self.verdict
        return known.precision if known else ""

    @property
    def dearest(self) -> tuple[tuple[int, Kernel], ...]:
        """The kernels that take longest, each with its place in the order in which they ran."""
        kernels = self.verdict.profile.kernels if self.verdict and self.verdict.profile else ()
        return tuple(sorted(enumerate(kernels), key=lambda entry: -entry[1].median_s)[:DEAREST])

    @property
    def standing(self) -> Standing:
        """`proven` only where at least one gate was held on a device and none failed; never by default.

        `uncertain`: gates were missed, but only where the device was too noisy to tell. `undecided`: none was missed,
        and the test images are too few to tell whether all hold.
        """
        if self.verdict is None:
            return "unproven"
        outcomes = {check.outcome for check in self.verdict.checks}
        if "fail" in outcomes:
            failed = [check for check in self.verdict.checks if check.outcome == "fail"]
            return "uncertain" if all(check.uncertain for check in failed) else "failed"
        if "pass" not in outcomes or self.verdict.executed_on == NOWHERE:
            return "unproven"
        if "undecided" in outcomes:
            return "undecided"
        return "reference" if NO_DEVICE in self.verdict.executed_on else "proven"


def _key(format_: str, precision: str, file: str) -> tuple[str, str, str]:
    return format_, precision, PurePosixPath(file).name


def read_report(path: Path) -> ReportData:
    """Read a report back from report.json, or from the folder that holds it.

    Raises:
        RunError: there is no report, or it is not one that this version reads.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        content = read_bounded(file)
    except OSError as error:
        raise RunError(
            f"cannot read the report: {error.strerror or error}",
            where=str(file),
            hint="name the folder or the report.json that `edgeprune run` wrote",
        ) from error
    try:
        return ReportData.model_validate_json(content)
    except ValidationError as error:
        raise RunError(
            f"not a report: {first_fault(error)}",
            where=str(file),
            hint="write it again with `edgeprune report`",
        ) from error


def operation_text(operation: OpSignature) -> str:
    """An operation in short: `conv2d 3x3/2, 32x32 px`."""
    text: str = operation.kind
    if operation.kind in ("conv2d", "depthwise_conv2d", "avg_pool2d", "max_pool2d"):
        text += f" {operation.kernel[0]}x{operation.kernel[1]}"
        text += f"/{operation.stride[0]}" if operation.stride != (1, 1) else ""
        text += f" g{operation.groups}" if operation.groups > 1 and operation.kind == "conv2d" else ""
    if operation.function:
        text += f" + {operation.function}" if operation.kind != "activation" else f" {operation.function}"
    return f"{text}, {operation.height}x{operation.width} px" if operation.height * operation.width > 1 else text


def layer_rows(
    structure: Structure,
    kept: Mapping[str, int],
    cost_s: Callable[[OpSignature], float | None] | None = None,
    *,
    gone: Collection[str] = (),
) -> tuple[LayerRow, ...]:
    """The layers of a structure before and after a choice.

    Args:
        kept: units kept of each group, as `Choice.kept`.
        cost_s: seconds of one operation on the device, from the latency table (None: counted with another one); None
            when there is no table.
        gone: names of the layers that went as a whole, with their residual branch.
    """
    rows = []
    for layer in structure.layers:
        before, after = layer.signature(structure.sizes), layer.signature(kept)
        rows.append(
            LayerRow(
                name=layer.name,
                operation=operation_text(before),
                width_before=before.out_channels,
                width_after=0 if layer.name in gone else after.out_channels,
                inputs_before=before.in_channels,
                inputs_after=0 if layer.name in gone else after.in_channels,
                cost_before_s=cost_s(before) if cost_s else None,
                cost_after_s=(0.0 if layer.name in gone else cost_s(after)) if cost_s else None,
                macs_before=before.macs,
                macs_after=0 if layer.name in gone else after.macs,
            )
        )
    return tuple(rows)
