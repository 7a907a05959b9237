"""Modes of a module for a while: all in eval mode, or its batch norms with the statistics of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into eval mode and give every sub-module its own mode back afterwards."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        if any(training for _, training in modes):
            for module in modules:
                module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def batch_statistics(module: nn.Module, *, momentum: float | None, reset: bool = False) -> Iterator[None]:
    """Within this context batch norms use each batch's own statistics, and learn them; all else is in eval mode.

    torch's `update_bn` is not that: it puts the whole model into training mode, dropout and all.

    Args:
        momentum: of the running statistics: 1 keeps the last batch's, None the plain average of all batches.
        reset: forget the statistics that are there.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    with evaluating(module):
        try:
            for norm in norms:
                if reset:
                    norm.reset_running_stats()
                norm.train()
                norm.momentum = momentum
            yield
        finally:
            for norm, before in zip(norms, momenta, strict=True):
                norm.momentum = before
