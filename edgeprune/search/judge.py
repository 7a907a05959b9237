"""What is lost by removing units and branches: the loss of the very model that stays, batch norms adapted to it.

A pruned model's batch norms still hold the statistics of the unpruned one, and most of its loss before re-training is
due to that. With the statistics taken anew from the judged images, the loss tells far better what re-training can
bring back (EagleEye, Li et al. 2020, arXiv 2007.02491, section 3.2: adaptive batch normalization). They judge whole
candidates by it; here every step of the allocator is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.models.answers import Answers, as_floats
from edgeprune.models.modes import batch_statistics
from edgeprune.recipe import Computing
from edgeprune.search.prefix import Prefixes
from edgeprune.space.apply import apply_but_gates
from edgeprune.space.gates import gates_at_batch_mean
from edgeprune.space.subnet import WHOLE, Subnet
from edgeprune.space.units import Structure
from edgeprune.tasks.objective import CLASSIFYING, Objective
from edgeprune.tasks.task import Targets


class AdaptedLoss:
    """A judge for the allocator: the mean loss of a task (of a classifier, cross entropy in nats).

    Args:
        module: the unpruned model; it stays as it is.
        batches: images (N, C, H, W) and targets. Batch norms use each batch's own statistics, so a batch should
            hold some dozens of images; one of a single image is judged with the statistics that the model has.
        precision: "bf16" is faster where the processor has it.
        objective: whose loss it is.
    """

    def __init__(
        self,
        module: nn.Module,
        structure: Structure,
        batches: Iterable[tuple[Tensor, Targets]],
        *,
        precision: Computing = "fp32",
        objective: Objective = CLASSIFYING,
    ) -> None:
        self.module, self.structure, self.precision, self.objective = module, structure, precision, objective
        self.batches: Sequence[tuple[Tensor, Targets]] = [
            (images.contiguous(memory_format=torch.channels_last), targets) for images, targets in batches
        ]
        self.prefixes = Prefixes(module, structure)

    def __call__(self, subnet: Subnet) -> float:
        pruned = apply_but_gates(self.module, self.structure, subnet)
        with gates_at_batch_mean(pruned, self.structure, subnet.dropped):
            return self._mean(pruned, lambda batch, images: self.prefixes.run(pruned, subnet, batch, images))

    def check(self) -> None:
        """Check that there is something to compare with.

        Raises:
            ModelError: the unpruned model's loss is no number.
        """
        if not math.isfinite(self(WHOLE)):
            raise ModelError(
                "the unpruned model's loss is no number on the images that choices are judged on",
                hint="look at the model's weights, at mean and std in [model], and at tune.precision",
            )

    def of(self, pruned: nn.Module, *, adapted: bool = True) -> float:
        """The loss of a model; it is left in eval mode, with other batch norm statistics unless it is to be judged with
        those that it has (not `adapted`)."""
        return self._mean(pruned, lambda _, images: pruned(images), adapted=adapted)

    def _mean(self, pruned: nn.Module, answer: Callable[[int, Tensor], Answers], *, adapted: bool = True) -> float:
        pruned.eval()
        losses = []
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            for batch, (images, targets) in enumerate(self.batches):
                own = batch_statistics(pruned, momentum=1.0) if adapted and len(images) > 1 else nullcontext()
                with own:
                    answers = as_floats(answer(batch, images))
                with torch.autocast("cpu", enabled=False):
                    losses.append(self.objective.loss(answers, targets) * len(images))
        return float(torch.stack(losses).sum()) / sum(len(images) for images, _ in self.batches)
