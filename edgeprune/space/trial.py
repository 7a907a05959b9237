"""Trials: does a pruned model compute what the masked one computes?

The models are tried with weights that all count: a new network's zero gains and a layer scale of 1e-6 would hide
whatever is wrong behind them.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgeprune.graph.sharing import copy_sharing
from edgeprune.graph.trace import TRACE_ERRORS, tensors_in
from edgeprune.models.modes import evaluating

SAME = 1e-4  # of the largest value: what single precision leaves equal
NOTHING = 1e-3  # parameters that are all smaller than this hide what they multiply


def lively(module: nn.Module) -> nn.Module:
    """A copy of a module in eval mode whose tiny parameters (zero gains, layer scales) are drawn anew, always alike.

    The other parameters are the module's own: a trial changes none.
    """
    tiny = {name for name, parameter in module.named_parameters() if _is_tiny(parameter)}
    kept = (parameter for name, parameter in module.named_parameters() if name not in tiny)
    copied = copy_sharing(module, kept).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if name in tiny:
                drawn = torch.randn(parameter.shape, generator=generator)
                if "bias" in name.rpartition(".")[2]:
                    drawn *= 0.1
                elif parameter.ndim > 1:
                    drawn *= parameter[0].numel() ** -0.5
                else:  # a gain
                    drawn = 1 + drawn.tanh() / 2
                parameter.copy_(drawn)
    return copied


def _is_tiny(parameter: Tensor) -> bool:
    if not parameter.is_floating_point() or not parameter.numel():
        return False
    least, most = torch.aminmax(parameter.detach())
    return max(-float(least), float(most)) < NOTHING


def trial_input(module: nn.Module, example: Tensor) -> Tensor:
    """Random numbers in the place of an input, always the same: two images where the module takes as many."""
    shape = (max(2, len(example)), *example.shape[1:])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(example)
    try:
        answers(module, x)
    except TRACE_ERRORS:
        return x[: len(example)]
    return x


def agree(pruned: nn.Module, masked: nn.Module, x: Tensor) -> bool:
    """Whether a pruned model runs and answers what the masked one does."""
    try:
        same = difference(answers(pruned, x), answers(masked, x)) <= SAME
    except TRACE_ERRORS:
        return False
    return same or difference_in_double(pruned, masked, x) <= SAME


def difference_in_double(pruned: nn.Module, masked: nn.Module, x: Tensor) -> float:
    """The difference in float64 (deep nets blow single precision's rounding up); infinite where a model has none."""
    left, right = (copy.deepcopy(module).double() for module in (pruned, masked))
    try:
        return difference(answers(left, x.double()), answers(right, x.double()))
    except TRACE_ERRORS:
        return float("inf")


def answers(module: nn.Module, x: Tensor) -> list[Tensor]:
    """What a module answers in eval mode."""
    with evaluating(module), torch.no_grad():
        return tensors_in(module(x))


def difference(given: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference between answers, relative to the largest value of each; infinite where shapes differ or a
    value is not finite in one of them only."""
    if [t.shape for t in given] != [t.shape for t in wanted]:
        return float("inf")
    worst = 0.0
    for got, want in zip(given, wanted, strict=True):
        if got.is_floating_point() and got.numel() and not torch.equal(got, want):
            gap = torch.where((got == want) | (got.isnan() & want.isnan()), 0, (got - want).abs())
            worst = max(worst, float(gap.nan_to_num(nan=float("inf")).max()) / (float(want.abs().max()) or 1.0))
    return worst
