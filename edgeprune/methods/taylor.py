"""Group Taylor: how much the loss would rise if a unit were gone, to first order, squared.

Molchanov et al., Importance Estimation for Neural Network Pruning (CVPR 2019), eq. 8: a unit is thought to be
multiplied by a mask z = 1 (a "gate" there), and its score is (dL/dz)^2, averaged over batches; for a filter
dL/dz = sum of w * dL/dw. HALP (Shen et al., NeurIPS 2022) has the mask behind a batch norm,
dL/dz = gamma * dL/dgamma + beta * dL/dbeta, and takes its absolute value.

A unit has one mask for all its coupled layers. It stands where the unit is read, which is where its removal leaves
zeros: by Euler's theorem dL/dz is the sum of w * dL/dw over the weights that read it, however many layers write the
unit, one behind the other (a norm, a layer scale), beside each other (a residual stream) or multiplied (a gated linear
unit). For convolution, batch norm and ReLU it is the same number as HALP's. Where channels are summed over without
weights, which only the writers can tell, their sum is taken; what is multiplied with each other and summed (query and
key) counts in the writers of both factors, so there half of what writes and reads it is the product once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeprune.errors import DataError, ModelError
from edgeprune.methods.method import OF_RANKINGS, OF_SCORES, Method, ToRank
from edgeprune.recipe import MOST_IMAGES, Section
from edgeprune.space.ranking import ByScore

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeprune.space.units import Member, Structure, UnitGroup
    from edgeprune.tasks.objective import Objective
    from edgeprune.tasks.task import Targets

MICRO_BATCHES = 8  # of which `scoring_batches` counts one batch
SCORING_BATCH = 16  # the square is taken per micro-batch: small ones keep the gradient's variance in the score
Saliency = dict[tuple[str, int], NDArray[np.float64]]  # (tensor, dimension) -> w * dL/dw, summed over the others


class TaylorSettings(Section):
    """[prune.taylor]. `scoring_batches`: of 128 images, from which the gradients are taken."""

    scoring_batches: int = Field(default=8, ge=1, le=MOST_IMAGES)


class Taylor(Method):
    """Group Taylor. With `knapsack`, which adds values up, it scores as HALP does, by |dL/dz|."""

    name = "taylor"
    Settings = TaylorSettings
    allocators = (*OF_RANKINGS, *OF_SCORES)

    def rank(self, asked: ToRank) -> ByScore:
        """By gradients on training images, taken in an order of their own."""
        assert isinstance(self.settings, TaylorSettings)
        batches = asked.images.batches(SCORING_BATCH, seed=asked.seed)
        chosen = list(itertools.islice(batches, self.settings.scoring_batches * MICRO_BATCHES))
        power: Literal[1, 2] = 1 if asked.prune.allocator == "knapsack" else 2
        return ByScore(
            score_taylor(asked.model.module, asked.structure, chosen, power=power, objective=asked.objective)
        )


def score_taylor(
    module: nn.Module,
    structure: Structure,
    batches: Iterable[tuple[Tensor, Targets]],
    *,
    power: Literal[1, 2] = 2,
    objective: Objective | None = None,
    slopes: Mapping[str, Slope] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Estimated rise of the loss for every unit.

    Batch norms use their running statistics. The module is left unchanged: weights, modes, gradients, requires_grad.

    Args:
        structure: what `find_structure` found in `module`.
        batches: (images (n, c, h, w), targets); each is one micro-batch.
        slopes: of each group; unless given, the derivative by a mask where the unit is read.
        power: of |dL/dz|, before the mean over batches: 2 is Molchanov's, 1 is HALP's, whose values are added up.
        objective: whose loss; a classifier's unless given.

    Returns:
        group id -> shape (units,), larger is more important.

    Raises:
        DataError: no batch, or targets that do not fit the model's output.
        ModelError: the task cannot read the output, or a score is not finite.
    """
    from edgeprune.models.modes import evaluating
    from edgeprune.space.cut import tensor_named
    from edgeprune.tasks.objective import CLASSIFYING

    asked = objective or CLASSIFYING
    if slopes is None:
        slopes = {group.id: _slope_of(module, structure, group) for group in structure.groups}
    sides = sorted({(member.name, member.dim) for slope in slopes.values() for member in slope.members})
    tensors = {name: tensor_named(module, name) for name in sorted({name for name, _ in sides})}
    scores = {group.id: np.zeros(group.size) for group in structure.groups}
    count = 0
    required = {name: tensor.requires_grad for name, tensor in tensors.items()}
    try:
        for tensor in tensors.values():
            tensor.requires_grad_(True)
        with evaluating(module):
            for images, targets in batches:
                saliency = _saliencies(module, tensors, sides, images, targets, asked)
                for name, slope in slopes.items():
                    scores[name] += np.abs(slope.of(saliency)) ** power
                count += 1
    finally:
        for name, tensor in tensors.items():
            tensor.requires_grad_(required[name])
    if count == 0:
        raise DataError("no batches to score with", hint="give at least one batch of labelled images")
    result = {name: total / count for name, total in scores.items()}
    _refuse_non_finite(result)
    return result


@dataclass(frozen=True)
class Slope:
    """The derivative by a unit's mask: whose w * dL/dw make it, each counted `share` times."""

    members: tuple[Member, ...]
    share: float = 1.0

    def of(self, saliency: Saliency) -> NDArray[np.float64]:
        """dL/dz, (units,)."""
        parts = [saliency[member.name, member.dim][member.indices].sum(axis=1) for member in self.members]
        return np.stack(parts).sum(axis=0, dtype=np.float64) * self.share


def _slope_of(module: nn.Module, structure: Structure, group: UnitGroup) -> Slope:
    """The readers' where nothing else reads the unit and they are linear in their weights; else the writers', of batch
    norms where there are any. What is contracted counts in both of its factors, and what is read besides in a writer
    and a reader: half of the sum is each once."""
    from torch.nn.modules.batchnorm import _NormBase

    from edgeprune.space.cut import tensor_named

    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    read = tuple(member for member in group.consumed if tensor_named(module, member.name).is_floating_point())
    linear = all(_path(member) not in structure.standardized for member in read)
    if read and linear and group.mixed is None:
        return Slope(read)
    written = tuple(member for member in group.produced if member.name in parameters)
    norms = tuple(member for member in written if isinstance(module.get_submodule(_path(member)), _NormBase))
    writers = norms or written
    return Slope((*writers, *read), 0.5) if group.mixed == "contracted" and linear else Slope(writers)


def _path(member: Member) -> str:
    return member.name.rpartition(".")[0]


def _saliencies(
    module: nn.Module,
    tensors: dict[str, Tensor],
    sides: list[tuple[str, int]],
    images: Tensor,
    targets: Targets,
    objective: Objective,
) -> Saliency:
    import torch

    from edgeprune.models.answers import as_floats, detached
    from edgeprune.tasks.task import moved

    if not tensors:
        return {}
    first = next(iter(tensors.values()))
    device, dtype = first.device, first.dtype
    with torch.enable_grad():
        answers = module(images.to(device=device, dtype=dtype))
        placed = moved(targets, device)
        objective.task.check(objective.read(detached(answers)), placed)
        loss = objective.loss(as_floats(answers) if dtype != torch.float64 else answers, placed)
        gradients = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    products = {
        name: torch.zeros_like(tensor) if gradient is None else tensor.detach() * gradient
        for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True)
    }
    return {(name, dim): summed(products[name], dim) for name, dim in sides}


def summed(values: Tensor, dim: int) -> NDArray[np.float64]:
    """Over all dimensions but one, in double precision."""
    import torch

    others = [axis for axis in range(values.ndim) if axis != dim % values.ndim]
    total = values.sum(others, dtype=torch.float64) if others else values.double()
    return np.asarray(total.cpu().numpy())


def _refuse_non_finite(scores: dict[str, NDArray[np.float64]]) -> None:
    bad = [name for name, values in scores.items() if not np.isfinite(values).all()]
    if bad:
        raise ModelError(
            f"the Taylor scores of {len(bad)} groups are not finite",
            where=bad[0],
            hint="look for NaN or infinity in the checkpoint's weights and in the images",
        )
