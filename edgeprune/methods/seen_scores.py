"""Scores from the gradients of a training's own steps, for the units of a model that is pruned meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeprune.methods.taylor import Saliency, Slope, summed
from edgeprune.space.cut import tensor_named
from edgeprune.space.submodel import Part
from edgeprune.space.units import Structure
from edgeprune.training.turns import Watch


class SeenScores(Watch):
    """The mean over steps of the squared slopes of each group's units, from choice to choice with momentum.

    A unit that is out has no gradient, and its score is 0: it goes first again.

    Args:
        module: the whole model that `structure` was found in.
        slopes: of each group.
        momentum: share of what was seen before the last choice.
    """

    def __init__(self, module: nn.Module, structure: Structure, slopes: Mapping[str, Slope], momentum: float) -> None:
        self._slopes, self._momentum = dict(slopes), momentum
        self._sides = sorted({(member.name, member.dim) for slope in slopes.values() for member in slope.members})
        self._lengths = {(name, dim): tensor_named(module, name).shape[dim] for name, dim in self._sides}
        self._sizes = structure.sizes
        self._sums, self._steps = self._zeros(), 0
        self._before: dict[str, NDArray[np.float64]] = {}

    def see(self, student: nn.Module, part: Part) -> None:
        """Take in the gradients of a step, before its weights change. One whose gradients are no numbers does not
        count: with fp16 the optimizer leaves it out, too (elsewhere the loss is no number in the step that follows)."""
        saliency = self._saliency(student, part)
        squares = {name: np.square(slope.of(saliency)) for name, slope in self._slopes.items()}
        if not all(np.isfinite(values).all() for values in squares.values()):
            return
        for name, values in squares.items():
            self._sums[name] += values
        self._steps += 1

    def scores(self) -> dict[str, NDArray[np.float64]] | None:
        """Group id -> (units,), larger is more important; None before the first step. What was seen since the last
        choice becomes a part of what was seen before."""
        if self._steps:
            new = {name: total / self._steps for name, total in self._sums.items()}
            old, share = self._before or new, self._momentum
            self._before = {name: share * old[name] + (1 - share) * values for name, values in new.items()}
            self._sums, self._steps = self._zeros(), 0
        return dict(self._before) or None

    def state(self) -> dict[str, Tensor]:
        told = {f"sum.{name}": torch.from_numpy(values.copy()) for name, values in self._sums.items()}
        told |= {f"before.{name}": torch.from_numpy(values.copy()) for name, values in self._before.items()}
        return told | {"steps": torch.tensor(self._steps)}

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, NDArray[np.float64]]:
            return {name.removeprefix(prefix): t.numpy().copy() for name, t in state.items() if name.startswith(prefix)}

        self._sums, self._before, self._steps = under("sum."), under("before."), int(state["steps"].item())

    def _zeros(self) -> dict[str, NDArray[np.float64]]:
        return {name: np.zeros(self._sizes[name]) for name in self._slopes}

    def _saliency(self, student: nn.Module, part: Part) -> Saliency:
        """w dL/dw by tensor and dimension in the whole model's places; 0 where nothing is."""
        there = dict(student.named_parameters())
        found: Saliency = {}
        products: dict[str, Tensor] = {}
        for name, dim in self._sides:
            whole = np.zeros(self._lengths[name, dim])
            parameter = there.get(name)
            if parameter is not None and parameter.grad is not None:
                if name not in products:
                    products[name] = parameter.detach() * parameter.grad
                whole[part.places(name, dim, len(whole))] = summed(products[name], dim)
            found[name, dim] = whole
        return found
