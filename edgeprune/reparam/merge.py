"""Fold batch norms into the convolution or linear layer before them; the algebra is exact. Constant gates: `gates.py`.

With s = gamma / sqrt(var + eps):  W' = s W,  b' = beta + s (b - mean).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import ModelError
from edgeprune.models.answers import as_one
from edgeprune.models.replacing import replace_modules
from edgeprune.reparam.gates import fold_gates
from edgeprune.reparam.graph import LINEAR, Graph, NotAlone, aten, operator
from edgeprune.reparam.scaling import over_outputs

LIMIT = 1e-9  # largest difference in float64; the algebra itself is exact
# What a model may round that casts to these types on its way, of its largest answer.
_ROUNDING = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class MergeReport:
    """What a merge did, and how far the merged model's answers are from the model's, computed in float64.

    `folded` and `kept` name batch norms; a kept one comes with the reason. `sqnr_db` is infinite for equal answers.
    """

    folded: tuple[str, ...]
    kept: tuple[tuple[str, str], ...]
    max_error: float
    sqnr_db: float
    largest: float  # answer


@dataclass(frozen=True)
class Proof:
    """A report, the type it was computed in, and the error that the algebra and that type's rounding allow."""

    report: MergeReport
    kind: str
    limit: float


@dataclass(frozen=True)
class _Fold:
    """A batch norm and the layer it goes into, by module path."""

    norm: str
    layer: str


def merge(module: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy in eval mode with each batch norm folded into the layer that feeds it, and only it.

    The pairs are found in the traced graph, not by name. Weights are computed in float64 and stored in their own
    type. A batch norm leaves an Identity, or its activation (timm's BatchNormAct2d). What is not understood stays
    as it is; `verify_merge` names it and why. What is left of removed gates goes into a neighbouring convolution.

    Args:
        example: a batch of inputs that the model is traced with.

    Raises:
        ModelError: the model cannot be traced.
    """
    result = copy.deepcopy(module).eval()
    folds, _ = _find(result, example)
    left: dict[nn.Module, nn.Module] = {}
    with torch.no_grad():
        for fold in folds:
            layer, norm = result.get_submodule(fold.layer), result.get_submodule(fold.norm)
            assert isinstance(norm, _BatchNorm)  # _find looked
            _fold(layer, norm)
            left[norm] = _what_is_left(norm)
    replace_modules(result, left)
    fold_gates(result, example)
    return result.eval()


def prove_merge(module: nn.Module, example: torch.Tensor) -> Proof:
    """Merge a model in float64, free of float32's rounding, and compare; in float32 if its forward casts to less.

    Raises:
        ModelError: it cannot be traced.
    """
    exact = copy.deepcopy(module).double().eval()
    try:
        report = verify_merge(exact, merge(exact, example.double()), example.double())
        floats, kind = _floats(exact, example.double()), torch.float64
    except (RuntimeError, ModelError):  # x.float() in it, say: no float64 gets through
        report = verify_merge(module, merge(module, example), example, dtype=torch.float32)
        floats, kind = _floats(module, example), torch.float32
    rounding = max((_ROUNDING.get(one, 0.0) for one in floats), default=0.0)
    return Proof(report, str(kind).removeprefix("torch."), max(LIMIT, rounding * max(1.0, report.largest)))


def _floats(module: nn.Module, example: torch.Tensor) -> set[torch.dtype]:
    """The types of the numbers that a model computes with."""
    values = (node.meta.get("val") for node in Graph(copy.deepcopy(module).eval(), example).nodes)
    return {value.dtype for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()}


def verify_merge(
    before: nn.Module, after: nn.Module, example: torch.Tensor, *, dtype: torch.dtype = torch.float64
) -> MergeReport:
    """Compare a model and its merge on a batch of inputs, both in float64 (or another type).

    Weights that are float64 themselves agree to about 1e-12; float32 ones carry the rounding of the merged weights.

    Raises:
        ModelError: the two give answers of different shapes, or one cannot be traced.
    """
    _, kept = _find(copy.deepcopy(before).eval(), example)
    norms = {name for name, m in before.named_modules() if isinstance(m, _BatchNorm)}
    left = {name for name, m in after.named_modules() if isinstance(m, _BatchNorm)}
    reasons = dict(kept)
    with torch.no_grad():
        one, other = (as_one(copy.deepcopy(m).to(dtype).eval()(example.to(dtype))).double() for m in (before, after))
    if one.shape != other.shape:
        raise ModelError(f"the merged model answers {tuple(other.shape)}, the model {tuple(one.shape)}")
    noise = (one - other).square().sum().item()
    return MergeReport(
        folded=tuple(sorted(norms - left)),
        kept=tuple((name, reasons.get(name, "it was left alone")) for name in sorted(left)),
        max_error=(one - other).abs().max().item(),
        sqnr_db=10 * math.log10(one.square().sum().item() / noise) if noise > 0 else math.inf,
        largest=one.abs().max().item(),
    )


def _find(module: nn.Module, example: torch.Tensor) -> tuple[list[_Fold], list[tuple[str, str]]]:
    """The batch norms to fold, in graph order, and those to keep with the reason."""
    graph = Graph(module, example)
    folds: list[_Fold] = []
    kept: list[tuple[str, str]] = []
    for name, norm in module.named_modules():
        if isinstance(norm, _BatchNorm):
            found = _layer_of(graph, name, norm)
            if isinstance(found, _Fold):
                folds.append(found)
            else:
                kept.append((name, found))
    return folds, kept


def _layer_of(graph: Graph, name: str, norm: _BatchNorm) -> _Fold | str:
    """The layer that a batch norm can be folded into, or why there is none."""
    if norm.running_mean is None:
        return "it normalises with the statistics of each batch"
    if not _is_known(norm):
        return f"a {type(norm).__name__} may do more than normalise"
    calls = [n for n in graph.nodes if n.target is aten.batch_norm.default and graph.path(n, 3, "running_mean") == name]
    if len(calls) != 1:
        return "it is not used" if not calls else f"it is used {len(calls)} times"
    source = calls[0].args[0]
    assert isinstance(source, fx.Node)
    return _into(graph, name, source)


def _into(graph: Graph, name: str, source: fx.Node) -> _Fold | str:
    try:
        path = graph.layer(source)
    except NotAlone as found:
        return f"it follows {found}"
    if len(source.users) > 1:
        return f"{operator(source)} before it also feeds something else"
    if source.target is LINEAR and source.meta["val"].ndim != 2:
        return f"the outputs of `{path}` are not what it normalises over"
    return _Fold(norm=name, layer=path)


def _fold(layer: nn.Module, norm: _BatchNorm) -> None:
    """Scale a layer's weight and set its bias, in place, so that it gives what the batch norm gave."""
    assert isinstance(layer, _ConvNd | nn.Linear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -scale * norm.running_mean.double()
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if layer.bias is not None:
        shift = shift + scale * layer.bias.double()
    weight = layer.weight
    layer.weight = nn.Parameter(over_outputs(layer, scale).to(weight.dtype), weight.requires_grad)
    layer.bias = nn.Parameter(shift.to(weight.dtype), weight.requires_grad)


def _is_known(norm: _BatchNorm) -> bool:
    return type(norm) in _PLAIN_NORMS or _is_timm_norm_act(norm)


def _is_timm_norm_act(norm: nn.Module) -> bool:
    kind = type(norm)
    return kind.__module__.startswith("timm.") and kind.__name__ in ("BatchNormAct2d", "SyncBatchNormAct")


class FoldedNorm(nn.Identity):
    """What stands where a batch norm was: it keeps what a model's forward may ask of its norm's settings.

    `num_features`, `eps`, `momentum`, `affine` and `track_running_stats` are those of the norm; weights it has none.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        for name in ("num_features", "eps", "momentum", "affine", "track_running_stats"):
            setattr(self, name, getattr(norm, name))


def _what_is_left(norm: nn.Module) -> nn.Module:
    """What a module does after its batch norm: timm's BatchNormAct2d drops out and activates."""
    if not _is_timm_norm_act(norm):
        return FoldedNorm(norm)
    parts = [part for part in (norm.get_submodule("drop"), norm.get_submodule("act")) if type(part) is not nn.Identity]
    if not parts:
        return FoldedNorm(norm)
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)
