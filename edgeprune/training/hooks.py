"""Hooks of the one training loop: what prunes, or holds something, while a model trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from edgeprune.space.weight_masks import apply_masks

if TYPE_CHECKING:
    from edgeprune.training.losses import Seen
    from edgeprune.training.trainer import Training


class Hook:
    """Called by the loop at each of these moments; does nothing unless a subclass says so.

    A hook may read and change the training: its student's weights, or with `Training.put` the student itself.
    """

    def before_epoch(self, training: Training, epoch: int) -> None:
        """Before an epoch, numbered from 1."""

    def loss(self, training: Training, seen: Seen) -> Tensor | None:  # noqa: ARG002
        """What is added to the loss of a batch, a scalar; None for nothing."""
        return None

    def after_backward(self, training: Training) -> None:
        """When the gradients of a whole batch are there, before they are clipped and the optimizer takes its step."""

    def after_step(self, training: Training) -> None:
        """After a step of the optimizer."""

    def after_epoch(self, training: Training, epoch: int) -> None:
        """After an epoch and its validation, before a snapshot is written."""

    def at_end(self, training: Training) -> None:
        """After the last epoch."""


class HeldAtZero(Hook):
    """Weights that stay zero.

    Args:
        masks: parameter name -> bool tensor of its shape, false where the weight is zero.
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = dict(masks)
        self._device: object = None

    def before_epoch(self, training: Training, epoch: int) -> None:  # noqa: ARG002
        if self._device != training.device:
            self._masks = {name: mask.to(training.device) for name, mask in self._masks.items()}
            self._device = training.device
        apply_masks(training.student, self._masks)

    def after_step(self, training: Training) -> None:
        apply_masks(training.student, self._masks)
