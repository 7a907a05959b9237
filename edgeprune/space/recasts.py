"""Attention whose queries, keys and values come from one layer, written so that they can differ in width.

timm's `Attention` lays the layer's answer out as (3, heads, head dimension): one width for all three. The same layer's
answer can be split in three before it is laid out, and then the dimensions of queries and keys are one unit and those
of values another (NViT, section 3.2: the same index in all heads). So the structure is read from a class that does
that, with the same parameters, and a model that loses such units gets it.
"""

from __future__ import annotations

from functools import lru_cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.graph.sharing import copy_sharing_all
from edgeprune.space.units import Recast, Structure

_WRITTEN_FOR = ("timm.layers.attention", "Attention")
_APART = "_edgeprune_apart"


def apart(module: nn.Module) -> nn.Module:
    """The module with such attention written apart: a copy with the module's own parameters, or itself where there is
    none."""
    if not any(_can_be_apart(part) for part in module.modules()):
        return module
    copied = copy_sharing_all(module)
    for part in copied.modules():
        if _can_be_apart(part):
            _recast(part)
    return copied


def find_recasts(module: nn.Module, structure: Structure) -> tuple[Recast, ...]:
    """The modules that get the other class, and the groups with whose units they do."""
    found = []
    for name, part in module.named_modules():
        if _can_be_apart(part):
            groups = tuple(
                group.id
                for group in structure.groups
                if any(member.name.startswith(f"{name}.qkv." if name else "qkv.") for member in group.produced)
            )
            if groups:
                found.append(Recast(name, groups))
    return tuple(found)


def apply_recast(part: nn.Module) -> None:
    """Give a module the class in which widths can differ, in place; one that has it stays."""
    if _can_be_apart(part):
        _recast(part)


def _can_be_apart(part: nn.Module) -> bool:
    return (type(part).__module__, type(part).__qualname__) == _WRITTEN_FOR and not hasattr(type(part), _APART)


def _recast(part: Any) -> None:
    part.q_width = part.k_width = part.v_width = part.attn_dim
    cls: Any = type(part)
    part.__class__ = _apart_class(cls)


@lru_cache(maxsize=8)
def _apart_class(cls: Any) -> Any:
    """A subclass with the other forward, which finds timm's helpers where the class's own does."""
    forward = FunctionType(_forward.__code__, {**cls.forward.__globals__, "torch": torch, "F": F}, "forward")
    forward.__defaults__ = _forward.__defaults__
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), {**names, _APART: True, "forward": forward})


def _forward(self: Any, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    b, n, _ = x.shape
    gate = self.gate(x).sigmoid() if self.gate is not None else None
    q, k, v = self.qkv(x).split([self.q_width, self.k_width, self.v_width], dim=-1)
    q = self.q_norm(q.reshape(b, n, self.num_heads, -1).transpose(1, 2))
    k = self.k_norm(k.reshape(b, n, self.num_heads, -1).transpose(1, 2))
    v = v.reshape(b, n, self.num_heads, -1).transpose(1, 2)
    if self.fused_attn:
        rate = self.attn_drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, dropout_p=rate, is_causal=is_causal)
    else:
        maps = (q * self.scale) @ k.transpose(-2, -1)
        bias = resolve_self_attn_mask(n, maps, attn_mask, is_causal)  # type: ignore[name-defined]  # noqa: F821  timm's
        x = self.attn_drop(maybe_add_mask(maps, bias).softmax(dim=-1)) @ v  # type: ignore[name-defined]  # noqa: F821
    x = self.norm(x.transpose(1, 2).reshape(b, n, self.attn_dim))
    if gate is not None:
        x = x * gate
    answer: Tensor = self.proj_drop(self.proj(x))
    return answer
