"""Activations, as defined in coremltools' MIL ops (iOS 15 to 18)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.verify.mil.registry import operation, refuse


@operation("relu")
def relu(x: Tensor) -> Tensor:
    return x.relu()


@operation("relu6")
def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


@operation("clamped_relu")
def clamped_relu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * alpha).clamp(max=float(beta))


@operation("leaky_relu")
def leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, x * alpha)


@operation("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    slope = alpha.reshape(-1, *[1] * (x.ndim - 2))
    return torch.where(x >= 0, x, x * slope)


@operation("elu")
def elu(x: Tensor, alpha: Tensor) -> Tensor:
    return functional.elu(x, float(alpha))


@operation("thresholded_relu")
def thresholded_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= alpha, x, torch.zeros_like(x))


@operation("sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


@operation("sigmoid_hard")
def sigmoid_hard(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return (x * alpha + beta).clamp(0, 1)


@operation("silu")
def silu(x: Tensor) -> Tensor:
    return functional.silu(x)


@operation("softplus")
def softplus(x: Tensor) -> Tensor:
    return functional.softplus(x)


@operation("gelu")
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "EXACT":
        return functional.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return functional.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * (1.702 * x).sigmoid()
    raise refuse("gelu", f"mode {mode}")


@operation("linear_activation")
def linear_activation(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return x * alpha + beta


@operation("softmax")
def softmax(x: Tensor, axis: Tensor) -> Tensor:
    return x.softmax(int(axis))
