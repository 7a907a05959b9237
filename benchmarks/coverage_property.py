"""The property: a pruned model computes what the masked one does, and its gradients are those of the kept slices.

Both sides of the benchmark are judged by `judge`. What stays is described by `Kept`: parameter name -> the flat
indices in the original parameter, in the shape of the pruned one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

Kept = Mapping[str, Tensor]
Input = Callable[[int, torch.dtype], Tensor]  # (seed, dtype) -> a random input

LIMIT_FLOAT32 = 1e-5
LIMIT_FLOAT64 = 1e-12
LIMIT_GRADIENTS = 1e-9
LIMIT_GRADIENTS_FLOAT32 = 1e-4


@dataclass(frozen=True)
class Judgement:
    """Errors are relative to the largest output (gradients: to the parameter's largest gradient)."""

    holds: bool
    finite: bool
    float32: float | None = None
    float64: float | None = None
    gradients: float | None = None
    worst_gradient: str | None = None
    rounding: float | None = None  # of the masked model itself: float32 against float64
    why: str | None = None  # what does not hold
    note: str | None = None  # what could not be asked as strictly, and why

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}


class Float32Seen(TorchDispatchMode):
    """Notes the operators that turn float64 into float32."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(leaf.dtype == torch.float32 for leaf in tensors(result)):
            self.operators.append(str(func))
        return result


class Statistics(TorchDispatchMode):
    """Notes over how many values each normalisation, softmax and mean runs.

    Where a pruned model has fewer of them than the masked one, masked and removed differ by nature: zeros count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        kwargs = kwargs or {}
        if name in ("native_layer_norm", "_fused_rms_norm"):
            self.seen.append((name, math.prod(args[1])))
        elif name == "native_group_norm":
            self.seen.append((name, args[0][0].numel() // args[6]))
        elif name in ("_softmax", "_log_softmax"):
            self.seen.append((name, args[0].shape[args[1]]))
        elif name in ("mean", "var", "std", "var_mean"):
            dims = args[1] if len(args) > 1 and args[1] is not None else range(args[0].ndim)
            self.seen.append((name, math.prod(args[0].shape[d] for d in dims)))
        elif name.startswith("_scaled_dot_product") and kwargs.get("scale") is None:
            self.seen.append(("scale of scaled_dot_product_attention", args[0].shape[-1]))
        return func(*args, **kwargs)


def tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def relative_error(given: Any, wanted: Any) -> float:
    """Largest difference of two outputs (tensors, tuples, lists), each relative to its largest wanted value.

    inf where shapes or their number differ or a value is not finite.
    """
    got, want = tensors(given), tensors(wanted)
    if [t.shape for t in got] != [t.shape for t in want]:
        return math.inf
    worst = 0.0
    for left, right in zip(got, want, strict=True):
        if not bool(left.isfinite().all() and right.isfinite().all()):
            return math.inf
        if right.numel():
            largest = float(right.abs().max())
            difference = float((left - right).abs().max())
            worst = max(worst, difference / largest if largest else (math.inf if difference else 0.0))
    return worst


def changed_statistics(pruned: nn.Module, masked: nn.Module, x: Tensor) -> str | None:
    """The first normalisation that runs over fewer values in the pruned model; None where all agree."""
    seen = []
    for module in (pruned, masked):
        with Statistics() as statistics, torch.no_grad():
            module(x)
        seen.append(statistics.seen)
    for left, right in zip(*seen, strict=False):
        if left != right:
            return f"{right[0]} over {left[1]} instead of {right[1]} values"
    return None if len(seen[0]) == len(seen[1]) else "another number of normalisations"


def judge(pruned: nn.Module, masked: nn.Module, kept: Kept, random_input: Input) -> Judgement:
    """Ask the property on random inputs; both modules are float64 afterwards."""
    with torch.no_grad():
        got, want = pruned(random_input(1, torch.float32)), masked(random_input(1, torch.float32))
        error32 = relative_error(got, want)
        finite = all(bool(t.isfinite().all()) for t in tensors(got))
        if math.isfinite(error32):
            x = random_input(2, torch.float32)
            error32 = max(error32, relative_error(pruned(x), masked(x)))
    if not math.isfinite(error32):
        shapes = [[tuple(t.shape) for t in tensors(value)] for value in (got, want)]
        other = f"outputs of shape {shapes[0]} instead of {shapes[1]}"
        return Judgement(False, finite, why=other if shapes[0] != shapes[1] else "not finite")
    pruned.double()
    masked.double()
    x = random_input(1, torch.float64)
    try:
        with Float32Seen() as seen, torch.no_grad():
            want64 = masked(x)
        with torch.no_grad():
            error64 = relative_error(pruned(x), want64)
    except (RuntimeError, TypeError, ValueError) as error:
        only = f"the model does not run in float64 ({_first_line(error)}): asked in float32 only"
        pruned.float()
        masked.float()
        gradients, worst = gradient_error(pruned, masked, kept, _two(random_input, torch.float32))
        why = _why(("float32", error32, LIMIT_FLOAT32), ("gradients", gradients, LIMIT_GRADIENTS_FLOAT32))
        return Judgement(why is None, finite, error32, None, gradients, worst, why=why, note=only)
    rounding = relative_error(pytree.tree_map(_double, want), want64)
    gradients, worst = gradient_error(pruned, masked, kept, _two(random_input, torch.float64))
    limits = [LIMIT_FLOAT32, LIMIT_FLOAT64, LIMIT_GRADIENTS]
    note: str | None = None
    if LIMIT_FLOAT32 < error32 <= 2 * rounding:
        limits[0], note = 2 * rounding, f"float32 rounds this model's output by {rounding:.1e}: asked at twice that"
    if seen.operators and (error64 > LIMIT_FLOAT64 or gradients > LIMIT_GRADIENTS):
        limits[1:] = [LIMIT_FLOAT32, LIMIT_GRADIENTS_FLOAT32]
        note = f"the model itself computes in float32 ({seen.operators[0]}): asked at its limits"
    errors = zip(("float32", "float64", "gradients"), (error32, error64, gradients), limits, strict=True)
    why = _why(*errors)
    return Judgement(why is None, finite, error32, error64, gradients, worst, rounding, why, note)


def _two(random_input: Input, dtype: torch.dtype) -> Tensor:
    """Two images: of a single one torch 2.13 gets batch norm's gradients wrong where the gradient that comes in has the
    strides of tokens turned into an image, (C, 1, W * C, C), as in levit (pytorch's defect, in masked and pruned)."""
    return torch.cat([random_input(1, dtype), random_input(2, dtype)])


def gradient_error(pruned: nn.Module, masked: nn.Module, kept: Kept, x: Tensor) -> tuple[float, str]:
    """Largest difference of the gradients of a random projection of the outputs, and the parameter it is in.

    Relative to the parameter's largest gradient, or to a thousandth of the model's largest where that is more
    (a bias before a softmax has a gradient of exactly 0, and rounding errors).
    """
    gradients = []
    for module in (pruned, masked):
        module.requires_grad_(True)
        parameters = dict(module.named_parameters())
        loss = _projection(module(x))
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        gradients.append(dict(zip(parameters, found, strict=True)))
    got, want = gradients
    largest = max((float(g.abs().max()) for g in want.values() if g is not None and g.numel()), default=0.0)
    worst, where = 0.0, ""
    for name, left in got.items():
        right = _kept_gradient(want, kept, name)
        if left is None and right is None:
            continue
        if left is None or right is None or left.shape != right.shape:
            other = left if left is not None else right
            if other is not None and float(other.abs().max()) == 0:
                continue
            return math.inf, name
        scale = max(float(right.abs().max()), 1e-3 * largest)
        error = float((left - right).abs().max()) / scale if scale else 0.0
        if not error <= worst:
            worst, where = (math.inf if math.isnan(error) else error), name
    return worst, where


def _kept_gradient(want: Mapping[str, Tensor | None], kept: Kept, name: str) -> Tensor | None:
    gradient = want.get(name)
    if name not in want:  # a module over the kept channels stands in for it
        path, _, last = name.rpartition(".")
        return want.get(f"{path}.narrow.{last}")
    return gradient if gradient is None or name not in kept else gradient.reshape(-1)[kept[name]]


def _projection(output: Any) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    total: Tensor | None = None
    for leaf in tensors(output):
        if leaf.is_floating_point():
            part = (leaf * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)).sum()
            total = part if total is None else total + part
    assert total is not None, "the model has no floating-point output"
    return total


def zero_removed(module: nn.Module, kept: Kept) -> nn.Module:
    """A copy of a module whose parameters are zero but for what is kept."""
    masked = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            if name in kept and kept[name].numel() < parameter.numel():
                mask = torch.zeros(parameter.numel(), dtype=torch.bool)
                mask[kept[name].reshape(-1)] = True
                parameter.mul_(mask.view(parameter.shape))
    return masked


def _why(*checks: tuple[str, float, float]) -> str | None:
    failed = [f"{name} {error:.3g} > {limit:.0e}" for name, error, limit in checks if not error <= limit]
    return ", ".join(failed) or None


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
