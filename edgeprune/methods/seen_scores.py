"""Scores from the gradients of a training's own steps, for the units of a model that is pruned meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.methods.taylor import Saliency, Slope, summed
from edgeprune.space.cut import tensor_named
from edgeprune.space.submodel import Part
from edgeprune.space.units import Structure
from edgeprune.training.turns import Watch

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class SeenScores(Watch):
    """The mean over steps of the squared slopes of each group's units, from choice to choice with momentum.

    What a unit is worth is asked of the steps that it was in: one that was out keeps what was seen of it before.

    Args:
        module: the whole model that `structure` was found in.
        slopes: of each group.
        momentum: share of what was seen before the last choice.

    Raises:
        ModelError: a weight that counts does not learn, so that no step has its gradient.
    """

    def __init__(self, module: nn.Module, structure: Structure, slopes: Mapping[str, Slope], momentum: float) -> None:
        self._slopes, self._momentum = dict(slopes), momentum
        self._sides = sorted({(member.name, member.dim) for slope in slopes.values() for member in slope.members})
        tensors = {name: tensor_named(module, name) for name, _ in self._sides}
        if frozen := sorted(name for name, tensor in tensors.items() if not tensor.requires_grad):
            raise ModelError(
                f"{len(frozen)} weights do not learn, and have no gradients that could be seen while the model trains",
                where=frozen[0],
                hint="let them learn, or prune in one step: leave prune.epochs out",
            )
        self._lengths = {(name, dim): tensors[name].shape[dim] for name, dim in self._sides}
        self._sizes = structure.sizes
        self._sums, self._steps = self._zeros(), self._zeros()
        self._before: dict[str, Array] = {}

    def see(self, student: nn.Module, part: Part) -> None:
        """Take in the gradients of a step, before its weights change. One whose gradients are no numbers does not
        count: with fp16 the optimizer leaves it out, too (elsewhere the loss is no number in the step that follows)."""
        saliency, there = self._saliency(student, part)
        squares = {name: np.square(slope.of(saliency)) for name, slope in self._slopes.items()}
        if not all(np.isfinite(values).all() for values in squares.values()):
            return
        for name, values in squares.items():
            first = self._slopes[name].members[0]
            self._sums[name] += values
            self._steps[name] += there[first.name, first.dim][first.indices].any(axis=1)

    def scores(self) -> dict[str, Array] | None:
        """Group id -> (units,), larger is more important; None before the first step. What was seen since the last
        choice becomes a part of what was seen before."""
        if any(steps.any() for steps in self._steps.values()):
            self._before = {name: self._mixed(name) for name in self._slopes}
            self._sums, self._steps = self._zeros(), self._zeros()
        return dict(self._before) or None

    def _mixed(self, name: str) -> Array:
        steps = self._steps[name]
        new = self._sums[name] / np.maximum(steps, 1)
        old = self._before.get(name, new)
        return np.where(steps > 0, self._momentum * old + (1 - self._momentum) * new, old)

    def state(self) -> dict[str, Tensor]:
        kinds = {"sum": self._sums, "steps": self._steps, "before": self._before}
        return {
            f"{kind}.{name}": torch.from_numpy(values.copy())
            for kind, of in kinds.items()
            for name, values in of.items()
        }

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Array]:
            return {name.removeprefix(prefix): t.numpy().copy() for name, t in state.items() if name.startswith(prefix)}

        zeros = self._zeros()  # of what a snapshot does not have, nothing was seen
        self._sums, self._steps = {**zeros, **under("sum.")}, {**self._zeros(), **under("steps.")}
        self._before = under("before.")

    def _zeros(self) -> dict[str, Array]:
        return {name: np.zeros(self._sizes[name]) for name in self._slopes}

    def _saliency(self, student: nn.Module, part: Part) -> tuple[Saliency, dict[tuple[str, int], Mask]]:
        """w dL/dw by tensor and dimension in the whole model's places, 0 where nothing is; and where something is."""
        named = dict(student.named_parameters(remove_duplicate=False))
        found: Saliency = {}
        there: dict[tuple[str, int], Mask] = {}
        products: dict[str, Tensor] = {}
        for name, dim in self._sides:
            length = self._lengths[name, dim]
            found[name, dim], there[name, dim] = np.zeros(length), np.zeros(length, bool)
            parameter = named.get(name)
            if parameter is not None and parameter.grad is not None:
                if name not in products:
                    products[name] = parameter.detach() * parameter.grad
                places = part.places(name, dim, length)
                found[name, dim][places], there[name, dim][places] = summed(products[name], dim), True
        return found, there
