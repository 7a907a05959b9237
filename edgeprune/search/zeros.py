"""How many zeros a target takes: counted for multiply-accumulates, found by measuring for a latency.

Where zeros stand is known before the model is trained on (`unstructured.py`: they stay where they are), and a sparse
kernel's time goes by that alone. So the share is settled first: files with fewer and more zeros are measured in turns
with the unpruned model's, and what lies between is nearly a straight line.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from edgeprune.errors import DeviceError, TargetError, UsageError
from edgeprune.latency.measurement import Ratio
from edgeprune.latency.probing import Probing
from edgeprune.models.spec import Model
from edgeprune.recipe import SparseLayers, SparseSection, Target
from edgeprune.reparam.merge import merge
from edgeprune.search.target import counted_cost, latency_share
from edgeprune.space.weight_masks import Masks, apply_masks, macs_of_weights, magnitude_masks
from edgeprune.sparsity.rewrite import write_sparse
from edgeprune.sparsity.rules import check_sparse

LEAST = 0.7  # XNNPACK's kernels want more than two thirds of the weights
STEP = 0.01  # between shares that are tried where zeros are counted in something else
MOST = (0.97, 0.95, 0.9, 0.8)  # the first that leaves no layer silent
LAYERS: dict[SparseLayers, str] = {"1x1": "the 1x1 convolutions", "all": "the convolutions and linear layers"}
SAME = 1e-3  # shares of zeros that are one and the same


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
        raise TargetError(
            f"the target {target} cannot be reached by zeros: the model takes {macs:.5g} multiply-accumulates, "
            f"{LAYERS[sparse.layers]} {sparse_macs:.5g} of them",
            where="sparse.target",
            hint="raise the target, or prune channels further (prune.target)"
            + (", or take sparse.layers = 'all'" if sparse.layers == "1x1" else ""),
        )
    masks_of(model, sparse, share)  # a layer that would fall silent is told now
    return Zeros(target=str(target), zeros=share, of="macs", layers=sparse.layers, within_tolerance=True)


class ZerosLoop:
    """Finds the share of zeros by which a model's sparse file takes a latency on a device.

    Args:
        model: pruned or not, without zeros.
        original: the unpruned model's file; `original_s` is what it takes.
        folder: where files may lie that are measured.
        tolerance: around the target, relative.
        corrections: measurements after those of the fewest and the most zeros.
        known: attempts of an interrupted search, which are not measured again.
        keep: gets all attempts that are worth knowing (not noisy ones) after each.
    """

    def __init__(
        self,
        model: Model,
        original: Path,
        sparse: SparseSection,
        probing: Probing,
        folder: Path,
        *,
        original_s: float,
        tolerance: float,
        corrections: int,
        known: Sequence[ZerosAttempt] = (),
        keep: Callable[[Sequence[ZerosAttempt]], None] = lambda _: None,
    ) -> None:
        assert sparse.target is not None
        self.model, self.original, self.original_s, self.sparse = model, original, original_s, sparse
        self.probing, self.folder, self.tolerance, self.corrections = probing, folder, tolerance, corrections
        self.target = Target.parse(sparse.target)
        self.goal = latency_share(self.target, original_s)
        self.known, self.keep = list(known), keep

    def check_zeros_are_needed(self, dense: Ratio | None) -> None:
        """Check that the model takes longer than the target without any zero.

        Args:
            dense: it against the original, where that was measured; else it is now.

        Raises:
            TargetError: it does not.
        """
        if dense is None:
            file = self.folder / "dense.tflite"
            self.probing.exporter.write(self._merged(self.model.module), file)
            dense = self.probing.ratio(file, self.original)
        reached = self._reached(dense)
        if reached <= self.goal:
            raise TargetError(
                f"the pruned model takes {reached:.3f}x without any zero, and the target of zeros is {self.target} "
                f"({self.goal:.3f}x)",
                where="sparse.target",
                hint="leave [sparse] out, lower its target, or raise prune.target (1x prunes no channel)",
            )

    def run(self) -> Zeros:
        """Returns the zeros whose measured latency is nearest the target.

        Raises:
            TargetError: even the most zeros are slower (the message says what they reach).
            UsageError: a rule of sparse inference does not hold, or there is no 1x1 convolution.
            DeviceError: the device is too noisy to tell.
        """
        most = self._measure(self._most())
        if most.reached > self.goal * (1 + self.tolerance):
            raise TargetError(
                f"the target {self.target} is faster than anything zeros reach: {most.zeros:.0%} of the 1x1 weights at "
                f"zero take {most.reached:.3f}x ({most.ratio.quality}) on {self.probing.device.id}",
                where="sparse.target",
                hint="raise the target, or prune channels first (a lower prune.target)",
            )
        tried = [most]
        if not self._within(most):
            tried.append(self._measure(self.fewest(most.zeros)))
        while not any(map(self._within, tried)) and len(tried) < self.corrections + 2:
            share = between(tried, self.goal)
            if share is None:
                break
            tried.append(self._measure(share))
        return self._best(tried)

    def _most(self) -> float:
        """The most zeros that leave no layer silent."""
        for share in MOST[:-1]:
            with suppress(UsageError):
                masks_of(self.model, self.sparse, share)
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
        dense, file = (self.folder / f"zeros-{share:.6f}{kind}.tflite" for kind in ("-dense", ""))
        if not file.exists():
            zeroed = copy.deepcopy(self.model.module)
            apply_masks(zeroed, masks_of(self.model, self.sparse, share))
            self.probing.exporter.write(self._merged(zeroed), dense)
            write_sparse(dense, file)
        return file

    def _merged(self, module: nn.Module) -> Model:
        return self.model.with_module(merge(module, self.model.example_input()))

    def _reached(self, ratio: Ratio) -> float:
        """What the target is about: the ratio, or for an absolute target seconds over the original's."""
        return ratio.ratio if self.target.unit == "x" else ratio.numerator.median_s / self.original_s

    def _measure(self, share: float) -> ZerosAttempt:
        known = next((attempt for attempt in self.known if abs(attempt.zeros - share) < SAME), None)
        if known is not None:
            return known
        file = self._file(share)
        found = check_sparse(file)
        if not found.holds:
            raise UsageError(
                f"{share:.0%} zeros would not run sparsely: {found.why_not}",
                where="sparse.target",
                hint="leave sparse.target out and prune channels (prune.target); see docs/methods/sparse.md",
            )
        ratio = self.probing.ratio(file, self.original)
        self.probing.on_message(
            f"{share:.1%} zeros: measured {ratio.ratio:.3f}x ({ratio.low:.3f}-{ratio.high:.3f}, {ratio.quality}), "
            f"target {self.goal:.3f}x"
        )
        attempt = ZerosAttempt(zeros=share, ratio=ratio, reached=self._reached(ratio))
        if ratio.quality == "stable":
            self.known.append(attempt)
            self.keep(self.known)
        return attempt

    def _within(self, attempt: ZerosAttempt) -> bool:
        return abs(attempt.reached / self.goal - 1) <= self.tolerance

    def _best(self, tried: Sequence[ZerosAttempt]) -> Zeros:
        best = min(tried, key=lambda attempt: abs(attempt.reached / self.goal - 1))
        within = self._within(best)
        fewest = not within and all(attempt.reached < self.goal for attempt in tried)
        if fewest:
            best = min(tried, key=lambda attempt: attempt.zeros)
        if not within and best.ratio.quality != "stable":
            raise DeviceError(
                f"too noisy to tell how many zeros the target takes ({best.ratio.evidence})",
                where=self.probing.device.id,
                hint="free the device from other work, or measure longer with device.protocol = 'standard'; "
                "then go on with --resume",
            )
        return Zeros(
            target=str(self.target),
            zeros=best.zeros,
            of=self.sparse.of,
            attempts=tuple(tried),
            within_tolerance=within,
            fewest=fewest,
        )


def between(tried: Sequence[ZerosAttempt], goal: float) -> float | None:
    """The share of zeros at which a line through the two attempts around the goal meets it; None where all are on one
    side of it, or nothing lies between."""
    slower = [attempt for attempt in tried if attempt.reached > goal]
    faster = [attempt for attempt in tried if attempt.reached <= goal]
    if not slower or not faster:
        return None
    a, b = min(slower, key=lambda attempt: attempt.reached), max(faster, key=lambda attempt: attempt.reached)
    share = a.zeros + (a.reached - goal) / (a.reached - b.reached) * (b.zeros - a.zeros)
    return share if min(abs(share - attempt.zeros) for attempt in tried) > SAME else None
