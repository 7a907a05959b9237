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
    values = given.float()
    normal: Tensor
    normal, mean, var, count = _Normalised.apply(values, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * count / (count - 1)).to(running_var), momentum)
    shape = (1, -1, *(1 for _ in range(given.ndim - 2)))
    if weight is not None:
        normal = normal * weight.view(shape)
    if bias is not None:
        normal = normal + bias.view(shape)
    return normal.to(given.dtype)


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) by channel, with the mean and the variance over all processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims = [d for d in range(values.ndim) if d != 1]
        shape = (1, -1, *(1 for _ in range(values.ndim - 2)))
        var, mean = torch.var_mean(values, dims, correction=0)
        own = float(values.numel() // values.shape[1])
        # Of parts to the whole (Chan et al. 1979), in double precision: no digit is lost to the order of the processes.
        parts = torch.stack([torch.full_like(mean, own), mean * own]).double()
        dist.all_reduce(parts)
        count, whole = parts[0], parts[1] / parts[0]
        squares = (var.double() + (mean.double() - whole).square()) * own
        dist.all_reduce(squares)
        if count[0] <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {values.shape}")
        variance = squares / count
        scale = torch.rsqrt(variance + eps).to(values.dtype).view(shape)
        normal = (values - whole.to(values.dtype).view(shape)) * scale
        ctx.save_for_backward(normal, scale, count)
        found = (whole, variance, count)
        ctx.mark_non_differentiable(*found)
        return normal, *found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0]
        normal, scale, count = ctx.saved_tensors
        dims, shape = [d for d in range(normal.ndim) if d != 1], scale.shape
        sums = torch.stack([gradient.sum(dims), (gradient * normal).sum(dims)]).double()
        dist.all_reduce(sums)
        mean, along = (sums / count).to(gradient.dtype)
        return (gradient - mean.view(shape) - normal * along.view(shape)) * scale, None
