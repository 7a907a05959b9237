"""Rounding weights to half precision so that what is rounded away cancels out. Runs inside a conversion child.

Rounded one by one, the weights of a filter are off by up to 2^-12 each, and nothing makes these errors cancel. Where a
filter takes the difference of large inputs (the edge filters of MobileNet's depthwise layers) what is left is far
greater than the rounding of the activations: MobileNetV2's logits keep 37 dB. Here a filter's bias and weights are
rounded in turn, and those that are still to come take over the error, so that the filter's outputs on typical inputs
stay as near as they can: the rule of GPTQ (Frantar et al. 2022, arXiv 2210.17323, section 3.3, eq. 2 and 3, with the
Cholesky factor of the inverse), to half precision instead of integers, the bias being the weight of a constant input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from edgeprune.quantization.calibration import samples_of

DAMPING = 1e-6  # of the mean square of the inputs, so that every matrix has an inverse
POSITIONS = 1024  # of an image at which a layer's inputs are looked at
LARGEST = 2048  # inputs of a filter; of more, only the means and variances are looked at (k x k numbers otherwise)
_CONV1D, _CONV2D = torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default
_LINEAR = torch.ops.aten.linear.default


def round_to_half(program: ExportedProgram, images: Tensor) -> None:
    """Replace the weights and biases of a program's convolutions and linear layers by values that fp16 holds exactly.

    Args:
        program: not yet decomposed; its weights are replaced, those of the module it came from stay.
        images: typical inputs (N, C, H, W), preprocessed, or several in a row (N, 1, 1, numbers); the moments of each
            layer's inputs are taken on them.
    """
    for layer, moments in _input_moments(program, images).items():
        weight = program.state_dict[layer.weight].detach()
        bias = program.state_dict[layer.bias].detach() if layer.bias is not None else None
        weight, bias = rounded(weight, moments, bias)
        program.state_dict[layer.weight] = nn.Parameter(weight)
        if layer.bias is not None and bias is not None:
            program.state_dict[layer.bias] = nn.Parameter(bias)


def rounded(weight: Tensor, moments: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Weights and biases that fp16 holds exactly, with each filter's outputs kept in the least squares sense: nearer to
    them than rounding one by one, or as near.

    Args:
        weight: (out, in / groups, ...), a filter's inputs being k in number.
        moments: (groups, 1 + k, 1 + k), the mean of [1, x][1, x]^T over a filter's inputs x.
        bias: (out,).
    """
    groups, size = moments.shape[:2]
    filters = weight.detach().double().reshape(groups, -1, size - 1)
    first = torch.zeros_like(filters[..., :1]) if bias is None else bias.detach().double().reshape(groups, -1, 1)
    exact = torch.cat([first, filters], 2)
    moments = moments.double()
    energy = moments.diagonal(dim1=1, dim2=2)
    order = (exact.abs().mean(1) * energy.sqrt())[:, 1:].argsort(stable=True, dim=1, descending=True) + 1
    order = torch.cat([torch.zeros_like(order[:, :1]), order], 1)
    damped = moments + DAMPING * energy.mean(1)[:, None, None] * torch.eye(size, dtype=torch.float64)
    damped = damped.gather(1, order[:, :, None].expand(-1, -1, size)).gather(2, order[:, None, :].expand(-1, size, -1))
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    columns = order[:, None, :].expand(exact.shape)
    rest = exact.gather(2, columns)
    for place in range(size):
        given = rest[:, :, place].half().double()
        error = (rest[:, :, place] - given) / factor[:, place, place, None]
        rest[:, :, place + 1 :] -= error[:, :, None] * factor[:, None, place, place + 1 :]
        rest[:, :, place] = given
    result = torch.empty_like(exact).scatter_(2, columns, rest)
    plain = exact.half().double()  # the rule is greedy: of a filter in a hundred, rounding one by one is nearer
    worse = _lost(result - exact, moments) > _lost(plain - exact, moments)
    result = torch.where(worse[..., None], plain, result)
    new = result[:, :, 1:].reshape(weight.shape).to(weight.dtype)
    return new, None if bias is None else result[:, :, 0].reshape(bias.shape).to(bias.dtype)


def _lost(off: Tensor, moments: Tensor) -> Tensor:
    """Mean square of what filters answer by weights that are off so much: (groups, filters)."""
    return ((off @ moments) * off).sum(2)


@dataclass(frozen=True)
class _Layer:
    weight: str
    bias: str | None


class _Watch(fx.Interpreter):
    """Runs a program and notes, for each layer with weights, the moments of its filters' inputs."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[_Layer, _Moments] = {}

    def run_node(self, n: fx.Node) -> Any:
        layer = _layer(n)
        if layer is not None:
            args, _ = self.fetch_args_kwargs_from_env(n)
            self.seen.setdefault(layer, _Moments()).add(_filter_inputs(n, args))
        return super().run_node(n)


def _layer(node: fx.Node) -> _Layer | None:
    if node.op != "call_function" or node.target not in (_CONV1D, _CONV2D, _LINEAR):
        return None
    weight = node.args[1]
    bias = node.args[2] if len(node.args) > 2 else None
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    return _Layer(str(weight.target), str(bias.target) if isinstance(bias, fx.Node) else None)


def _filter_inputs(node: fx.Node, args: tuple[Any, ...]) -> Tensor:
    """What the filters of each group read, at some positions: (groups, k, positions)."""
    values, weight = args[0], args[1]
    if node.target == _LINEAR:
        columns = values.reshape(1, -1, values.shape[-1]).transpose(1, 2)
    else:
        defaults: list[Any] = [1, 0, 1, 1]
        stride, padding, dilation, groups = [*args[3:], *defaults[max(0, len(args) - 3) :]]
        if node.target == _CONV1D:
            values, weight = values.unsqueeze(2), weight.unsqueeze(2)
            stride, padding, dilation = (1, *_pair(stride)[:1]), (0, *_pair(padding)[:1]), (1, *_pair(dilation)[:1])
        columns = F.unfold(values, weight.shape[2:], _pair(dilation), _pair(padding), _pair(stride))
        columns = columns.transpose(0, 1).reshape(groups, -1, columns.shape[0] * columns.shape[2])
    chosen = torch.randperm(columns.shape[2], generator=torch.Generator().manual_seed(0))[:POSITIONS]
    return columns[:, :, chosen]


def _pair(value: Any) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return int(values[0]), int(values[-1])


@dataclass
class _Moments:
    """Sums over what filters read, a constant 1 before it: (groups, 1 + k), products (groups, 1 + k, 1 + k)."""

    count: int = 0
    inputs: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    products: Tensor | float = 0.0

    def add(self, columns: Tensor) -> None:
        x = F.pad(columns.double(), (0, 0, 1, 0), value=1.0)
        self.count += x.shape[2]
        self.inputs = self.inputs + x.sum(2)
        self.squares = self.squares + x.square().sum(2)
        if x.shape[1] <= LARGEST:
            self.products = self.products + x @ x.transpose(1, 2)

    def mean(self) -> Tensor:
        """The mean of [1, x][1, x]^T, the more shrunk towards uncorrelated inputs the fewer have been seen."""
        means, squares = torch.as_tensor(self.inputs) / self.count, torch.as_tensor(self.squares) / self.count
        plain = means[:, :, None] * means[:, None, :] + torch.diag_embed(squares - means.square())
        if not isinstance(self.products, Tensor):
            return plain
        size = plain.shape[1]
        return torch.lerp(self.products / self.count, plain, size / (size + self.count))


def _input_moments(program: ExportedProgram, images: Tensor) -> dict[_Layer, Tensor]:
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    watch = _Watch(module)
    with torch.no_grad():
        for sample in samples_of(program, images):
            watch.run(*sample)
    return {layer: moments.mean() for layer, moments in watch.seen.items()}
