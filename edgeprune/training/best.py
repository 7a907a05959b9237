"""The best epoch of a training, by the images that choices are made on: re-training never ends below its beginning."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.data.split import Split
from edgeprune.tasks.objective import Objective
from edgeprune.tasks.task import Metric
from edgeprune.training.accuracy import recalibrate_batchnorm
from edgeprune.training.processes import Processes
from edgeprune.training.validation import validated

ADAPTED_ON = 1024  # training images, that batch norms get their statistics from


@dataclass(frozen=True)
class Best:
    """Weights and buffers by name, on the CPU, of the model that did best so far.

    Args:
        epoch: numbered from 1; 0 is the model that training began with.
        validation: its metric on the validation images.
        began: that of the model that training began with.
    """

    epoch: int
    validation: float
    began: float
    state: dict[str, torch.Tensor]

    def or_this(self, module: nn.Module, epoch: int, validation: float, metric: Metric) -> Best:
        """This one, or a later model that is as good: of two that differ by chance alone, the one that trained longer.

        The validation images choose among few models, so what they say of the chosen one is a little too good; test
        images have no part in it.
        """
        if metric.is_better(self.validation, validation):
            return self
        return Best(epoch, validation, self.began, state_of(module))

    def put_into(self, module: nn.Module) -> nn.Module:
        """The same module with these weights."""
        module.load_state_dict(self.state)
        return module


def beginning(module: nn.Module, train: Split, validation: Split, objective: Objective, processes: Processes) -> Best:
    """The model that training begins with: with its batch norms as they are, or adapted to what went, whichever is
    better."""
    figure = validated(module, validation, objective, processes)
    if any(isinstance(part, _BatchNorm) for part in module.modules()):
        adapted = recalibrate_batchnorm(module, train, ADAPTED_ON)
        better = validated(adapted, validation, objective, processes)
        if objective.metric.is_better(better, figure):
            module, figure = adapted, better
    return Best(0, figure, figure, state_of(module))


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a module's weights and buffers, on the CPU."""
    return {name: copy.deepcopy(tensor.detach()).cpu() for name, tensor in module.state_dict().items()}
