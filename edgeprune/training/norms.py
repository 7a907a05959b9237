"""Batch norms whose statistics are those of the whole batch, where each process has a part of it.

torch's SyncBatchNorm runs on GPUs alone, and takes the place of modules, which timm's own norms would not survive.
Here the one function that they all call is answered otherwise for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class statistics_of_all(TorchFunctionMode):  # noqa: N801 - it is called as a function is
    """Within this context `torch.nn.functional.batch_norm` in training mode sees the batches of all processes."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return (_batch_norm if function is F.batch_norm else function)(*args, **(kwargs or {}))


def _batch_norm(
    given: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(given, running_mean, running_var, weight, bias, False, momentum, eps)
    result: Tensor
    result, mean, var, count = _Normalised.apply(given.float(), weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var), momentum)
    return result.to(given.dtype)


class _Normalised(torch.autograd.Function):
    """weight (x - mean) / sqrt(var + eps) + bias by channel, with the mean and the variance over all processes.

    Passes over the values are torch's own kernels, those of a batch norm whose statistics are given: written out in
    single operators, a norm took four times as long, and two processes were no faster than one.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var = _own_statistics(values)
        own = torch.full_like(mean, values.numel() // values.shape[1], dtype=torch.float64)
        whole, variance, count = _of_all(torch.stack([own, mean.double(), var.double()]))
        if count[0] <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {values.shape}")
        mean, var = whole.to(values.dtype), variance.to(values.dtype)
        ctx.save_for_backward(values, weight, mean, var, count)
        ctx.eps = eps
        found = (whole, variance, count)
        ctx.mark_non_differentiable(*found)
        return F.batch_norm(values, mean, var, weight, bias, False, 0.0, eps), *found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        gradient = gradients[0].contiguous()
        values, weight, mean, var, count = ctx.saved_tensors
        _, has_weight, has_bias, _ = ctx.needs_input_grad
        scale = torch.rsqrt(var + ctx.eps)
        # Of y = (x - mean) scale: sum(dy y) and sum(dy), of this process alone; then of all.
        _, along, plain = torch.ops.aten.native_batch_norm_backward(
            gradient, values, torch.ones_like(mean), mean, var, mean, scale, False, ctx.eps, [False, True, True]
        )
        sums = torch.stack([along, plain]).double()
        dist.all_reduce(sums)
        along_all, plain_all = (sums / count).to(gradient.dtype)
        slope = scale if weight is None else scale * weight
        # dx = slope (dy - mean(dy) - y mean(dy y)); what is not of dy is a batch norm of x.
        rest = F.batch_norm(values, mean, var, -slope * along_all, -slope * plain_all, False, 0.0, ctx.eps)
        shape = (1, -1, *(1 for _ in range(values.ndim - 2)))
        of_values = torch.addcmul(rest, gradient, slope.view(shape))
        return of_values, along if has_weight else None, plain if has_bias else None, None


def _own_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (of the values, not an estimate) of each channel in this process."""
    if values.device.type == "cpu":
        mean, var = torch.batch_norm_update_stats(values, None, None, 0.0)
    else:
        var, mean = torch.var_mean(values, [d for d in range(values.ndim) if d != 1], correction=0)
    return mean, var


def _of_all(own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and number of the values of all processes, of (number, mean, variance) of each: parts to the whole
    (Chan et al. 1979), in double precision: no digit is lost to the order of the processes."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    numbers, means, variances = torch.stack(parts).unbind(1)
    count = numbers.sum(0)
    whole = (numbers * means).sum(0) / count
    return whole, (numbers * (variances + (means - whole).square())).sum(0) / count, count
