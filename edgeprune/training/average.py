"""The moving average of a student's weights, and less memory for its training: what timm does with a model."""

from __future__ import annotations

from torch import nn

from edgeprune.errors import RecipeError


class Average:
    """timm's moving average of weights and batch norm statistics (ModelEmaV3). In the first steps it follows faster:
    with its full memory it would be what training began with.

    Args:
        decay: the share of the average that stays at a step.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        from edgeprune.models.timm_import import import_timm

        import_timm()
        from timm.utils.model_ema import ModelEmaV3

        self._ema = ModelEmaV3(student, decay=decay, use_warmup=True)

    @property
    def module(self) -> nn.Module:
        """The average, in eval mode."""
        module: nn.Module = self._ema.module
        return module

    def update(self, student: nn.Module, step: int) -> None:
        """Take in the weights after a step, numbered from 1."""
        self._ema.update(student, step=step + 1)  # timm leaves the average out in its step 1


def checkpointed(module: nn.Module) -> None:
    """Let a model of timm's keep the inputs of its blocks alone, and compute the rest again in the backward pass.

    Raises:
        RecipeError: it cannot.
    """
    asked = getattr(module, "set_grad_checkpointing", None)
    try:
        if asked is None:
            raise NotImplementedError(f"{type(module).__name__} has no set_grad_checkpointing")
        asked(True)
    except (AssertionError, NotImplementedError) as error:
        raise RecipeError(
            f"this model cannot compute its blocks again in the backward pass: {error}",
            where="tune.checkpointing",
            hint="leave tune.checkpointing out, and raise tune.accumulate to need less memory; a model of your own "
            "may have a method set_grad_checkpointing(enable)",
        ) from error
