"""What the prune stage writes down of its choice."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeprune.latency.cost import MacsCost, total
from edgeprune.latency.measurement import Ratio
from edgeprune.latency.predictor import Prediction, Predictor
from edgeprune.methods.refit import Reconstruction
from edgeprune.recipe import PruneSection, Target, TargetFile
from edgeprune.report.data import Attempt as AttemptRow
from edgeprune.report.data import LayerRow, layer_rows
from edgeprune.search.constraints import Binding
from edgeprune.search.measured import Attempt
from edgeprune.search.pruned import Pruned
from edgeprune.search.target import latency_share
from edgeprune.training.precision import Ran


class PruneRecord(BaseModel):
    """What the prune stage did, for the report and for `edgeprune show`."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")  # a loss may be no number
    target: str
    target_file: str | None = None  # that a latency target is about; None of a counted one, and of older runs
    method: str
    allocator: str
    attempts: tuple[AttemptRow, ...]
    ratio: Ratio | None  # of the chosen model over the original, interleaved; None for a counted target
    within_tolerance: bool | None  # None: a latency that was only predicted
    nothing_nearer: bool = False  # faster than asked, and no choice between that and the target loses less
    layers: tuple[LayerRow, ...]
    branches: tuple[str, ...]  # residual branches that went as a whole
    macs_before: float
    macs_after: float
    predicted: Prediction | None  # of a latency that was only predicted, from typical tables
    counted_before: float | None  # of a counted target, in its own unit
    counted_after: float | None
    binding: Binding  # what keeps it from being cheaper
    loss: float  # cross entropy on the judged images before re-training (NetAdapt: after its short training)
    reconstruction: Reconstruction | None = None  # what least squares made of that
    judged_in: Ran | None = None  # the precision that models were judged in; None in what an earlier version wrote


def record_of(
    pruned: Pruned,
    predictor: Predictor | None,
    settings: PruneSection,
    reconstruction: Reconstruction | None,
    counted: tuple[float, float] | None,
    *,
    original_s: float,
    judged_in: Ran,
    file: TargetFile,
) -> PruneRecord:
    """The record of a choice; `original_s` is the unpruned model's latency as measured, `counted` what the unpruned
    and the pruned module have of a counted target, in its unit; `file` the one that a latency target is about."""
    structure, subnet = pruned.structure, pruned.chosen.subnet
    kept, gone = subnet.kept(structure), subnet.layers_gone(structure)
    target, best = Target.parse(settings.target), pruned.best
    unmeasured = True if target.takes_nothing else None
    products = (*structure.layers, *structure.products)
    return PruneRecord(
        target=str(target),
        target_file=str(file) if target.is_latency and not target.takes_nothing else None,
        method=settings.method,
        allocator=str(settings.allocator),
        attempts=tuple(
            _row(number, attempt, original_s, target) for number, attempt in enumerate(pruned.attempts, start=1)
        ),
        ratio=best.measured if best else None,
        within_tolerance=counted[1] <= target.value * (1 + 1e-9) if counted else best.within if best else unmeasured,
        nothing_nearer=best is not None and best.nothing_nearer,
        predicted=None if best or predictor is None else predictor.predict(kept, gone),
        counted_before=counted[0] if counted else None,
        counted_after=counted[1] if counted else None,
        layers=layer_rows(structure, kept, predictor.seconds_of if predictor else None, gone=gone),
        macs_before=total(products, structure.sizes, MacsCost()),
        branches=subnet.dropped,
        macs_after=total([layer for layer in products if layer.name not in gone], kept, MacsCost()),
        binding=pruned.binding,
        loss=pruned.chosen.loss,
        reconstruction=reconstruction,
        judged_in=judged_in,
    )


def _row(number: int, attempt: Attempt, original_s: float, target: Target) -> AttemptRow:
    return AttemptRow(
        step=number,
        predicted_s=attempt.place * original_s,
        target_s=latency_share(target, original_s) * original_s,
        ratio=attempt.measured,
        within_tolerance=attempt.within,
    )
