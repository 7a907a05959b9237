"""How many zeros each type of layer bears: one type is pruned at a time, and the model asked without re-training.

The layer-type study of "Pruning Compact ConvNets for Efficient Inference" (arXiv 2301.04502, section 4), for any model.
What is asked is the model as it stands, its batch norms adapted: re-training brings back more, and alike for all types.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

from torch import nn

from edgeprune.data.open import open_data
from edgeprune.data.split import Split
from edgeprune.errors import DataError, UsageError
from edgeprune.graph.weights import Weight, find_weights
from edgeprune.metric import ACCURACY, Metric
from edgeprune.models.answers import PLAIN, form_of
from edgeprune.models.copies import check_copies
from edgeprune.models.load import load_from
from edgeprune.models.spec import Model
from edgeprune.progress import Progress, Silent
from edgeprune.recipe import Recipe
from edgeprune.records import Record
from edgeprune.space.branches import remove_branches
from edgeprune.space.find import find_structure
from edgeprune.space.gates import set_gate_constants
from edgeprune.space.units import Structure
from edgeprune.space.weight_masks import apply_masks, magnitude_masks
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.registry import task_of
from edgeprune.training.accuracy import measure, recalibrate_batchnorm
from edgeprune.verify.alarm import refuse_random
from edgeprune.verify.known import check_known

ZEROS = (0.5, 0.8, 0.9, 0.95, 0.99)
DROP = 0.01  # of the accuracy, that a type may lose and still be said to bear its zeros
ROUNDING = 1e-9
ADAPTED_ON = 256  # images that batch norms take their statistics from, and gates their mean
BATCH = 128
GATE = "squeeze-excitation"


class TypeOfLayer(Record):
    """What one type of layer is and bears.

    `accuracy` has the metric at each share of zeros, in the order of `Sensitivity.zeros`. `bears` is the largest share
    of zeros up to which every accuracy is within `DROP` of the model's; 0 where there is none.
    """

    name: str
    layers: int
    weights: int
    macs: int
    accuracy: tuple[float, ...]
    bears: float


class Sensitivity(Record):
    """What each type bears. `accuracy` is that of the model itself, in the same way, `without_gates` that of the model
    with the mean in the place of every squeeze-excitation gate; None where it has none."""

    model: str
    zeros: tuple[float, ...]
    images: int
    accuracy: float
    without_gates: float | None
    types: tuple[TypeOfLayer, ...]
    metric: Metric = ACCURACY


def sensitivity(
    recipe: Recipe,
    *,
    zeros: Sequence[float] = ZEROS,
    images: int = 500,
    progress: Progress | None = None,
) -> Sensitivity:
    """Ask a model how many zeros each type of layer bears.

    The least weights of every layer of one type are set to zero, the same share of each; batch norms take their
    statistics anew from `ADAPTED_ON` calibration images. Where the model has squeeze-excitation, it is also asked with
    all gates removed for their mean.

    Args:
        recipe: [model] and [data] count.
        zeros: shares, from above 0 to below 1.
        images: validation images at most.
        progress: is told what is being asked, how much of it is done, and what is worth knowing of the data.

    Raises:
        DataError: there are no validation images.
        UsageError: a share is not between 0 and 1, or leaves a layer without weights.
        ModelError: the model cannot be loaded or traced, or its accuracy raises the alarm (`verify.alarm`).
    """
    if not zeros or not all(0 < share < 1 for share in zeros):
        raise UsageError(f"shares of zeros lie between 0 and 1, not {', '.join(map(str, zeros))}")
    progress = progress or Silent()
    model = load_from(recipe.model)
    refuse_random(recipe.model)
    check_copies(model, trains=False)
    task = task_of(recipe.task)
    splits = open_data(recipe.data, model.spec, seed=recipe.seed, kind=task.target, progress=progress)
    objective = Objective.of(task, recipe.task, form_of(model.module) or PLAIN)
    check_known(model, splits.test, recipe.model, objective, progress=progress)
    if len(splits.validation) == 0:
        raise DataError("there are no validation images to ask the model", hint="set data.validation_images")
    asked, calibration = splits.validation.take(images), splits.calibration.take(ADAPTED_ON)
    example = model.example_input()
    structure = find_structure(model.module, example)
    types = types_of_layers(structure, find_weights(model.module, example))
    levels, gates = tuple(sorted(zeros)), [branch.id for branch in structure.branches if branch.gate]
    steps, done = 1 + len(types) * len(levels) + bool(gates), 0

    def accuracy_of(module: nn.Module, said: str) -> float:
        nonlocal done
        progress.update(said, done, steps)
        done += 1
        return measure(recalibrate_batchnorm(module, calibration, ADAPTED_ON), asked, objective)

    whole = accuracy_of(model.module, "the model itself")
    rows = []
    for name, weights in types.items():
        found = [accuracy_of(_pruned(model, weights, share), f"{name}, {share * 100:g}% zeros") for share in levels]
        rows.append(_row(name, weights, levels, found, whole, objective.metric))
    without = accuracy_of(_without(model.module, structure, gates, calibration), "without gates") if gates else None
    progress.update("done", steps, steps)
    return Sensitivity(
        model=model.spec.source,
        zeros=levels,
        images=len(asked),
        accuracy=whole,
        without_gates=without,
        types=tuple(rows),
        metric=objective.metric,
    )


def types_of_layers(structure: Structure, weights: Mapping[str, Weight]) -> dict[str, list[Weight]]:
    """Type -> its layers' weights, in the order of their use: squeeze-excitation, depthwise, convolutions by their
    kernel, linear."""
    inside = {f"{layer}.weight" for branch in structure.branches if branch.gate for layer in branch.layers}
    found: dict[str, list[Weight]] = {}
    for name, weight in weights.items():
        found.setdefault(GATE if name in inside else weight.kind, []).append(weight)
    return found


def _pruned(model: Model, weights: Sequence[Weight], share: float) -> nn.Module:
    pruned, names = copy.deepcopy(model.module), [weight.name for weight in weights]
    apply_masks(pruned, magnitude_masks(pruned, model.example_input(), zeros=share, scope="uniform", which=names))
    return pruned


def _without(module: nn.Module, structure: Structure, gates: Sequence[str], images: Split) -> nn.Module:
    pruned = remove_branches(module, structure, gates)
    set_gate_constants(pruned, module, structure, gates, (batch for batch, _ in images.batches(BATCH)))
    return pruned


def _row(
    name: str,
    weights: Sequence[Weight],
    levels: Sequence[float],
    found: Sequence[float],
    whole: float,
    metric: Metric,
) -> TypeOfLayer:
    bears = 0.0
    for share, accuracy in zip(levels, found, strict=True):
        if metric.lost(whole, accuracy) > DROP + ROUNDING:
            break
        bears = share
    return TypeOfLayer(
        name=name,
        layers=len(weights),
        weights=sum(math.prod(weight.shape) for weight in weights),
        macs=sum(weight.macs for weight in weights),
        accuracy=tuple(found),
        bears=bears,
    )
