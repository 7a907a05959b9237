"""How many zeros a target takes: counted for multiply-accumulates, found by measuring for a latency.

Where zeros stand is known before the model is trained on (`space/weight_masks.py`: they stay there), and a sparse
kernel's time goes by that alone. So the share is found first: files with fewer and more zeros are measured in turns
with the unpruned model's, and what lies between is nearly a straight line.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from edgeprune.errors import TargetError, UsageError
from edgeprune.latency.bench import Bench
from edgeprune.latency.measurement import Ratio
from edgeprune.models.spec import Model
from edgeprune.recipe import SparseLayers, SparseSection, Target
from edgeprune.reparam.merge import merge
from edgeprune.search.measured import Attempt, Found, Goal, MeasuredSearch
from edgeprune.search.problem import out_of_reach
from edgeprune.search.target import counted_cost
from edgeprune.space.weight_masks import Masks, apply_masks, macs_of_weights, magnitude_masks
from edgeprune.sparsity.rewrite import write_sparse
from edgeprune.sparsity.rules import check_sparse

LEAST = 0.7  # XNNPACK's kernels want more than two thirds of the weights
STEP = 0.01  # between shares that are tried where zeros are counted in something else
MOST = (0.97, 0.95, 0.9, 0.8)  # the first that leaves no layer silent
LAYERS: dict[SparseLayers, str] = {"1x1": "the 1x1 convolutions", "all": "the convolutions and linear layers"}


class ZerosAttempt(BaseModel):
    """A file with so many zeros, measured."""

    model_config = ConfigDict(frozen=True)
    zeros: float
    ratio: Ratio
    reached: float  # of the original's latency: the ratio, or for an absolute target seconds over the original's


class Zeros(BaseModel):
    """The share of zeros that a target takes. `attempts`: none for a target that is counted."""

    model_config = ConfigDict(frozen=True)
    target: str
    zeros: float
    of: Literal["weights", "macs"]
    layers: SparseLayers = "1x1"
    attempts: tuple[ZerosAttempt, ...] = ()
    within_tolerance: bool
    fewest: bool = False  # faster than asked with the fewest zeros that run sparsely

    @property
    def best(self) -> ZerosAttempt | None:
        """The attempt that was chosen."""
        return next((attempt for attempt in self.attempts if attempt.zeros == self.zeros), None)

    @property
    def words(self) -> str:
        """What the target takes, in one line."""
        said = f"{self.zeros:.1%} zeros of {LAYERS[self.layers]}' {self.of} for {self.target}"
        if self.best is None or self.within_tolerance:
            return said
        if self.fewest:
            return f"{said}: {self.best.reached:.3f}x, faster than asked, for fewer do not run sparsely"
        return f"{said}: {self.best.reached:.3f}x, outside of prune.tolerance, is the nearest in prune.corrections"


def masks_of(model: Model, sparse: SparseSection, share: float) -> Masks:
    """The weights that stay when such a share becomes zero, as the recipe's [sparse] counts it. A target that is
    counted is reached, to a block; any other share is not passed."""
    counted = _is_counted(sparse)
    example = model.example_input()
    of_macs = counted or sparse.of == "macs"
    return magnitude_masks(
        model.module,
        example,
        zeros=share,
        scope=sparse.scope,
        block=sparse.block,
        which=sparse.layers,
        costs=macs_of_weights(model.module, example, sparse.layers) if of_macs else None,
        reaching=counted,
    )


def _is_counted(sparse: SparseSection) -> bool:
    return sparse.target is not None and not Target.parse(sparse.target).is_latency


def counted_zeros(model: Model, sparse: SparseSection, macs: float) -> Zeros:
    """The zeros by which a model takes no more multiply-accumulates than `sparse.target` says.

    Args:
        macs: of the model without zeros, on one image.

    Raises:
        TargetError: it takes no more without any, or the layers that may have zeros take fewer than what has to go.
        UsageError: there is no such layer.
    """
    target = Target.parse(sparse.target or "")
    _, wanted = counted_cost(target)
    costs = macs_of_weights(model.module, model.example_input(), sparse.layers)
    named: dict[str, Tensor] = dict(model.module.named_parameters())
    sparse_macs = sum(cost * named[name].numel() for name, cost in costs.items())
    if wanted >= macs:
        raise TargetError(
            f"the model takes {macs:.5g} multiply-accumulates without any zero, the target {target} no fewer",
            where="sparse.target",
            hint="choose a target below that",
        )
    share = (macs - wanted) / sparse_macs if sparse_macs else 1.0
    if share >= 1:
        raise out_of_reach(
            f"the target {target}",
            f"{(macs - sparse_macs) / 1e6:.5g} MMACs ({LAYERS[sparse.layers]} have {sparse_macs:.5g} of {macs:.5g} "
            "multiply-accumulates)",
            by="the model without any of the weights that may be zero",
            where="sparse.target",
            hint="raise the target, or prune channels further (prune.target)"
            + (", or take sparse.layers = 'all'" if sparse.layers == "1x1" else ""),
        )
    masks_of(model, sparse, share)  # a layer that would fall silent is told now
    return Zeros(target=str(target), zeros=share, of="macs", layers=sparse.layers, within_tolerance=True)


class ZerosRow:
    """The row of a model's files with ever fewer zeros: a place is the share of the weights that stay.

    Args:
        model: pruned or not, without zeros.
        folder: where files may lie that are measured.
    """

    known: tuple[tuple[float, float], ...] = ()  # a file without zeros runs by other kernels: it is not on this line
    starts, hint = 2, "raise the target, or prune channels first (a lower prune.target)"

    def __init__(self, model: Model, sparse: SparseSection, bench: Bench, folder: Path) -> None:
        self._model, self._sparse, self._bench, self._folder = model, sparse, bench, folder
        self._most = self._most_zeros()
        self.low = 1 - self._most
        self.fastest = f"the model with {self._most:.0%} of its 1x1 weights at zero"

    @cached_property
    def high(self) -> float:
        return 1 - self.fewest(self._most)

    def begin(self, goal: float) -> Iterator[float]:  # noqa: ARG002  # both ends, wherever the goal lies
        yield self.low
        yield self.high

    def at(self, place: float) -> float:
        return min(1 - place, self._most) if place < self.high else 1 - self.high

    def place_of(self, model: float) -> float:
        return 1 - model

    def name_of(self, model: float) -> str:
        return f"{model:.3f} zeros"

    def words_of(self, model: float) -> str:
        return f"{model:.1%} zeros"

    def finer(self) -> bool:
        return False

    def write(self, model: float) -> Path:
        """The model's sparse file with such a share of zeros.

        Raises:
            UsageError: a rule of sparse inference does not hold, or there is no 1x1 convolution.
        """
        file = self._file(model)
        found = check_sparse(file)
        if not found.holds:
            raise UsageError(
                f"{model:.0%} zeros would not run sparsely: {found.why_not}",
                where="sparse.target",
                hint="leave sparse.target out and prune channels (prune.target); see docs/methods/sparse.md",
            )
        return file

    def _most_zeros(self) -> float:
        """The most zeros that leave no layer silent."""
        for share in MOST[:-1]:
            with suppress(UsageError):
                masks_of(self._model, self._sparse, share)
                return share
        return MOST[-1]  # what stands against that is said when its file is made

    def fewest(self, most: float) -> float:
        """The fewest zeros that run sparsely; `most` do. XNNPACK counts weights, whatever the recipe counts, so there
        may have to be more of them than `LEAST`."""
        low, high = LEAST, most
        if low >= high or self._runs(low):
            return min(low, high)
        while high - low > STEP:
            share = (low + high) / 2
            low, high = (low, share) if self._runs(share) else (share, high)
        return high

    def _runs(self, share: float) -> bool:
        return check_sparse(self._file(share)).holds

    def _file(self, share: float) -> Path:
        """The model's sparse file with so many zeros, written once."""
        dense, file = (self._folder / f"zeros-{share:.6f}{kind}.tflite" for kind in ("-dense", ""))
        if not file.exists():
            zeroed = copy.deepcopy(self._model.module)
            apply_masks(zeroed, masks_of(self._model, self._sparse, share))
            self._bench.exporter.write(merged(self._model, zeroed), dense)
            write_sparse(dense, file)
        return file


def merged(model: Model, module: nn.Module) -> Model:
    return model.with_module(merge(module, model.example_input()))


def check_zeros_are_needed(model: Model, goal: Goal, dense: Ratio | None, folder: Path) -> None:
    """Check that a model takes longer than the target without any zero.

    Args:
        dense: it against the original, where that was measured; else it is now.

    Raises:
        TargetError: it does not.
    """
    if dense is None:
        file = folder / "dense.tflite"
        goal.bench.exporter.write(merged(model, model.module), file)
        dense = goal.bench.ratio(file, goal.original)
    reached = goal.reached(dense)
    if reached <= goal.share:
        raise TargetError(
            f"the pruned model takes {reached:.3f}x without any zero, and the target of zeros is {goal.target} "
            f"({goal.share:.3f}x)",
            where="sparse.target",
            hint="leave [sparse] out, lower its target, or raise prune.target (1x prunes no channel)",
        )


def zeros_for_latency(
    model: Model,
    sparse: SparseSection,
    goal: Goal,
    folder: Path,
    *,
    known: Mapping[str, Attempt],
    keep: Callable[[Attempt], None],
) -> Zeros:
    """The zeros by which a model's sparse file takes a latency on a device.

    Args:
        known, keep: as in `MeasuredSearch`.

    Raises:
        TargetError: even the most zeros are slower (the message says what they reach).
        UsageError: a rule of sparse inference does not hold, or there is no 1x1 convolution.
        DeviceError: the device is too noisy to tell.
    """
    row = ZerosRow(model, sparse, goal.bench, folder)
    found: Found[float] = MeasuredSearch(row, goal, known, keep).run()
    return Zeros(
        target=str(goal.target),
        zeros=found.model,
        of=sparse.of,
        attempts=tuple(ZerosAttempt(zeros=1 - a.place, ratio=a.measured, reached=a.reached) for a in found.attempts),
        within_tolerance=found.best.within,
        fewest=found.best.nothing_nearer,
    )
