"""Torch-Pruning's side of the coverage benchmark: half of the channels of every group, as its examples do it.

MetaPruner with L2 magnitudes, ratio 0.5, the classifier and tables per head ignored, heads told, TIMM_FUSED_ATTN=0, the
attention modules' attributes set by hand afterwards (examples/timm_models). Where that is not enough, other settings
are tried (`attempts`), and the best outcome counts.

What it removed is read off exactly: before pruning, every parameter's gradient is set to the numbers of its elements
(int32 bits in a float32 tensor), and Torch-Pruning cuts gradients as it cuts parameters. The masked model is the
original with everything else zero. A norm that lost channels runs over those that stay, in the masked model as well
(masked and removed differ there by nature). Where statistics still run over fewer values (norms written by hand, a
softmax over channels, the scale of attention), the property is not asked: `unasked` means that the model runs, is
finite and has lost enough.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from coverage_edgeprune import ENOUGH
from coverage_models import FINDING, Family, build, random_input
from coverage_property import Judgement, Kept, changed_statistics, judge, relative_error, tensors, zero_removed
from torch import Tensor, nn

from edgeprune.graph.trace import TRACE_ERRORS
from edgeprune.space.apply import count_parameters

RANK = ("ok", "unasked", "little", "wrong", "broken")
# names of projections inside attention modules -> how many of q, k, v they hold
PROJECTIONS = {"qkv": 3, "qkv_proj": 3, "kv": 2} | dict.fromkeys(
    ("q", "k", "v", "q_proj", "k_proj", "v_proj", "query", "key", "value"), 1
)
# parameters that have an element per head or position, none per channel: ignored, as its options allow
PER_HEAD = ("relative_position", "rel_pos", "attention_bias", "logit_scale", "temperature")
WIDTHS = ("attn_dim", "all_head_dim", "attention_dim", "dim")


@dataclass(frozen=True)
class Attempt:
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    attention: bool = True  # False: attention's projections are ignored


def attempts(has_attention: bool) -> tuple[Attempt, ...]:
    if has_attention:
        return (
            Attempt("head dimensions", {"prune_head_dims": True}),
            Attempt("heads", {"prune_head_dims": False, "prune_num_heads": True, "head_pruning_ratio": 0.5}),
            Attempt("attention ignored", attention=False),
        )
    return (Attempt("plain"), Attempt("round_to 8", {"round_to": 8}))


def measure(family: Family, record: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill in the record with the best attempt; saved after each, so that a time-out keeps what there was."""
    module, example = build(family)
    record["parameters"] = count_parameters(module)
    heads = attention_projections(module)
    record["attempts"] = []

    def at(stage: str) -> None:  # what a time-out ends
        record["at"] = stage
        save()

    for attempt in attempts(bool(heads)):
        result = _try(family, module, example, attempt, at)
        record["attempts"].append(result)
        best = min(record["attempts"], key=lambda r: RANK.index(r["outcome"]))
        record |= {key: value for key, value in best.items() if key not in ("name", "find_s", "find_cpu_s", "graph_s")}
        for key in ("find_s", "find_cpu_s", "graph_s"):  # the first attempt that built it
            record[key] = next((r[key] for r in record["attempts"] if key in r), None)
        record.pop("at", None)
        save()
        if record["outcome"] == "ok":
            return


def _try(
    family: Family, module: nn.Module, example: Tensor, attempt: Attempt, at: Callable[[str], None]
) -> dict[str, Any]:
    result: dict[str, Any] = {"name": attempt.name}
    pruned = copy.deepcopy(module)
    stage = "pruning"
    try:
        _prune(pruned, example, attempt, result, at)
        result["share_removed"] = 1 - count_parameters(pruned) / count_parameters(module)
        stage = "the pruned model"
        with torch.no_grad():
            output = tensors(pruned(random_input(family, 1)))
    except TRACE_ERRORS as error:
        return result | {"outcome": "broken", "why": f"{stage}: {type(error).__name__}: {str(error)[:300]}"}
    kept = kept_elements(pruned)
    for parameter in pruned.parameters():
        parameter.grad = None
    enough = result["share_removed"] >= ENOUGH
    if kept is None:
        if not all(bool(leaf.isfinite().all()) for leaf in output):
            return result | {"outcome": "wrong", "why": "not finite"}
        why = "what was removed cannot be read off: a parameter was cut without its gradient"
        return result | {"outcome": "unasked" if enough else "little", "not_asked": why}
    masked = zero_removed(module, kept)
    norms_over_kept(masked, pruned, kept)
    judgement, nature = _judge(family, pruned, masked, kept)
    with torch.no_grad():
        x = random_input(family, 1, next(iter(masked.parameters())).dtype)
        result["effect"] = relative_error(masked(x), copy.deepcopy(module).to(x.dtype)(x))
    result["property"] = judgement.to_dict()
    if nature is not None:
        result["not_asked"] = nature
    if judgement.holds or (nature is not None and judgement.finite and "shape" not in (judgement.why or "")):
        return result | {"outcome": ("ok" if judgement.holds else "unasked") if enough else "little"}
    return result | {"outcome": "wrong", "why": judgement.why}


def _judge(family: Family, pruned: nn.Module, masked: nn.Module, kept: Kept) -> tuple[Judgement, str | None]:
    """The judgement and, where the property fails, the normalisation for which masked and removed differ."""
    nature = None
    try:
        nature = changed_statistics(pruned, masked, random_input(family, 1))
        judgement = judge(pruned, masked, kept, lambda seed, dtype: random_input(family, seed, dtype))
    except TRACE_ERRORS as error:  # the reference cannot be built: in doubt for the other side
        nature = nature or f"no reference: {type(error).__name__}: {str(error)[:200]}"
        judgement = Judgement(False, True, why="no reference")
    return judgement, None if judgement.holds else nature


def _prune(
    module: nn.Module, example: Tensor, attempt: Attempt, result: dict[str, Any], at: Callable[[str], None]
) -> None:
    import torch_pruning as tp

    heads = attention_projections(module)
    number(module)
    ignored: list[Any] = [*classifiers(module, example)]
    ignored += [p for name, p in module.named_parameters() if any(word in name for word in PER_HEAD)]
    if not attempt.attention:
        ignored += list(heads)
    build_dependency = tp.DependencyGraph.build_dependency

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        graph = build_dependency(*args, **kwargs)
        result["graph_s"] = time.perf_counter() - begin
        return graph

    with warnings.catch_warnings(), mock.patch.object(tp.DependencyGraph, "build_dependency", timed):
        warnings.simplefilter("ignore")
        at(FINDING)
        wall, cpu = time.perf_counter(), time.process_time()
        pruner = tp.pruner.MetaPruner(
            module,
            example,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=ignored,
            num_heads={projection: count for projection, count in heads.items() if attempt.attention},
            in_channel_groups={},
            out_channel_groups={},
            **attempt.settings,
        )
        result["find_s"], result["find_cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
        at("pruning")
        pruner.step()
    result["prune_s"] = time.perf_counter() - wall - result["find_s"]
    if attempt.attention:
        update_attention(module, pruner.num_heads)


def attention_projections(module: nn.Module) -> dict[nn.Module, int]:
    """The query, key and value projections of attention modules -> number of heads."""
    return {
        projection: count
        for part in module.modules()
        if isinstance(count := getattr(part, "num_heads", None), int)
        for name in PROJECTIONS
        if isinstance(projection := getattr(part, name, None), nn.Linear | nn.Conv2d)
    }


def update_attention(module: nn.Module, heads: dict[nn.Module, int]) -> None:
    """Set what attention modules know of their heads, as Torch-Pruning's examples do by hand."""
    for part in module.modules():
        names = [name for name in PROJECTIONS if getattr(part, name, None) in heads]
        if not names:
            continue
        projection = getattr(part, names[0])
        width = projection.weight.shape[0] // PROJECTIONS[names[0]]
        count, head_dim = (getattr(part, name, None) for name in ("num_heads", "head_dim"))
        told: dict[str, int] = {"num_heads": heads[projection]}
        if isinstance(count, int) and isinstance(head_dim, int):
            told["head_dim"] = width // heads[projection]
            told |= {name: width for name in WIDTHS if getattr(part, name, None) == count * head_dim}
        for name, value in told.items():
            setattr(part, name, value)


def classifiers(module: nn.Module, example: Tensor) -> list[nn.Module]:
    """The layers whose width must stay: those as wide as there are classes, or the last that runs."""
    layers = [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    classes = getattr(module, "num_classes", 0)
    found: list[nn.Module] = [part for part in layers if classes and part.weight.shape[0] == classes]
    if found:
        return found
    order: list[nn.Module] = []
    hooks = [part.register_forward_hook(lambda m, _i, _o: order.append(m)) for part in layers]
    with torch.no_grad():
        module(example)
    for hook in hooks:
        hook.remove()
    return order[-1:]


def number(module: nn.Module) -> None:
    """Number the elements of every parameter, in its gradient (int32 bits: exact up to 2**31 elements)."""
    for parameter in module.parameters():
        numbers = torch.arange(parameter.numel(), dtype=torch.int32).view(parameter.shape)
        parameter.grad = numbers.view(torch.float32)


def kept_elements(module: nn.Module) -> Kept | None:
    """The numbers that are left; None where a parameter and its numbers are not of the same shape."""
    kept = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is None or parameter.grad.shape != parameter.shape:
            return None
        kept[name] = parameter.grad.contiguous().view(torch.int32).long()
    return kept


class NormOverKept(nn.Module):
    """A norm over the channels that stay; the others become 0."""

    def __init__(self, norm: nn.Module, stay: Tensor, width: int) -> None:
        super().__init__()
        self.narrow, self.stay, self.width = norm, stay, width
        self.dim = 1 if "2d" in type(norm).__name__.lower() or hasattr(norm, "num_groups") else -1

    def forward(self, x: Tensor) -> Tensor:
        dim = self.dim % x.ndim
        if x.shape[dim] != self.width:
            raise ValueError(f"dimension {dim} of {tuple(x.shape)} has not {self.width} channels")
        y: Tensor = self.narrow(x.index_select(dim, self.stay))
        return torch.zeros_like(x).index_copy(dim, self.stay, y)


def norms_over_kept(masked: nn.Module, pruned: nn.Module, kept: Kept) -> None:
    """Let the norms of the masked model run over the channels that stay; batch norms need nothing."""
    for path, part in list(masked.named_modules()):
        name = type(part).__name__.lower()
        weight = getattr(part, "weight", None)
        if "norm" not in name or "batch" in name or not isinstance(weight, Tensor) or weight.ndim != 1:
            continue
        stay = kept[f"{path}.weight"]
        if stay.numel() < weight.numel():
            norm = copy.deepcopy(pruned.get_submodule(path))
            parent, _, last = path.rpartition(".")
            setattr(masked.get_submodule(parent), last, NormOverKept(norm, stay, weight.numel()))
