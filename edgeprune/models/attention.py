"""torch's nn.MultiheadAttention written as plain layers, so that its heads and widths can be told apart and cut.

torch keeps queries, keys and values in one weight and computes them in one piece, for one width alone. The same is
written here with a linear layer for each of them. What is written so is tried: where the model's answers are not the
same in double precision, the module stays as it is.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from edgeprune.errors import ModelError
from edgeprune.models.answers import as_one
from edgeprune.models.factory import fixed_seed, users_code
from edgeprune.models.replacing import replace_modules

_SAME = {torch.float64: 1e-10, torch.float32: 1e-5}  # of the largest answer
_PARAMETERS = {"in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight", "bias_k", "bias_v"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Asked(nn.Module):
    """What torch's encoder layers ask before they compute attention themselves: with these answers they do not."""

    in_proj_weight: None = None
    in_proj_bias: None = None
    bias_k: None = None
    bias_v: None = None
    add_zero_attn = False
    _qkv_same_embed_dim = False
    batch_first: bool


class PlainAttention(_Asked):
    """What an nn.MultiheadAttention computes, with layers of their own for queries, keys, values and the answer.

    Without `fused_attn` the scale is the one it was made with; `space/fused.py` turns it off where query and key
    dimensions go.
    """

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        if source.in_proj_weight is not None:
            weights = source.in_proj_weight.chunk(3)
        else:
            weights = (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        biases = (None,) * 3 if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        self.out_proj = _linear(source.out_proj.weight, source.out_proj.bias)
        self.num_heads, self.dropout, self.batch_first = source.num_heads, source.dropout, source.batch_first
        self.scale, self.fused_attn = source.head_dim**-0.5, True
        self.train(source.training)

    @property
    def embed_dim(self) -> int:
        return self.q_proj.in_features

    @property
    def kdim(self) -> int:
        return self.k_proj.in_features

    @property
    def vdim(self) -> int:
        return self.v_proj.in_features

    @property
    def head_dim(self) -> int:
        return self.q_proj.out_features // self.num_heads

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See nn.MultiheadAttention. `is_causal` says of `attn_mask` what that is: the mask is what counts."""
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal needs an attn_mask")
        batched = query.dim() == 3
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        mask = self._mask(attn_mask, key_padding_mask, query)
        q, k, v = self._heads(self.q_proj(query)), self._heads(self.k_proj(key)), self._heads(self.v_proj(value))
        x, maps = self._attend(q, k, v, mask, fused=self.fused_attn and not need_weights)
        x = self.out_proj(x.transpose(1, 2).flatten(2))
        if not need_weights:
            maps = None
        elif maps is not None:
            maps = maps.mean(1) if average_attn_weights else maps
            maps = maps if batched else maps.squeeze(0)
        if not batched:
            return x.squeeze(0), maps
        return x if self.batch_first else x.transpose(0, 1), maps

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, fused: bool
    ) -> tuple[Tensor, Tensor | None]:
        rate = self.dropout if self.training else 0.0
        if fused:
            return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate), None
        maps = (q * self.scale) @ k.transpose(-2, -1)
        if mask is not None:
            maps = maps + mask
        maps = maps.softmax(-1)
        if rate > 0:
            maps = nn.functional.dropout(maps, rate)
        return maps @ v, maps

    def _mask(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor) -> Tensor | None:
        """What is added to the products: (L, S), or with batch and heads in front."""
        mask = None if attn_mask is None else _added(attn_mask, query)
        if mask is not None and mask.dim() == 3:
            mask = mask.reshape(query.shape[0], self.num_heads, mask.shape[1], mask.shape[2])
        if key_padding_mask is None:
            return mask
        padding = _added(key_padding_mask, query)[:, None, None, :]
        return padding if mask is None else mask + padding


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask of truth values as numbers to add: minus infinity where it is true."""
    if mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return layer


class EmptyAttention(_Asked):
    """Stands where attention was taken away: answers what a module that stands for it answers to the queries."""

    def __init__(self, attention: PlainAttention, instead: nn.Module) -> None:
        super().__init__()
        self.batch_first, self.instead = attention.batch_first, instead

    def forward(self, query: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        return self.instead(query), None


def has_attention(module: nn.Module) -> bool:
    """Whether some of its modules may be written as plain layers."""
    return bool(_candidates(module))


def write_attention(module: nn.Module, example: Tensor, where: str) -> None:
    """Write each nn.MultiheadAttention as plain layers with which the model answers what it did; in place.

    Subclasses, and what has hooks, parts of its own, or parameters that are another module's as well, stay as they are.
    """
    names = _candidates(module)
    if not names:
        return
    if not _answer_alike(module, names, example, where):
        names = [name for name in names if len(names) > 1 and _answer_alike(module, [name], example, where)]
        if not _answer_alike(module, names, example, where):
            return
    write_plainly(module, names, where)


def written_plainly(module: nn.Module) -> tuple[str, ...]:
    """The names of the modules that are written as plain layers."""
    return tuple(name for name, part in module.named_modules() if type(part) is PlainAttention)


def write_plainly(module: nn.Module, names: Iterable[str], where: str) -> None:
    """Write these modules as plain layers, wherever they are held; in place.

    Raises:
        ModelError: one of them is no nn.MultiheadAttention.
    """
    parts = dict(module.named_modules())
    written: dict[nn.Module, PlainAttention] = {}
    for name in names:
        part = parts.get(name)
        if type(part) is nn.MultiheadAttention and name in _candidates(module):
            written[part] = PlainAttention(part)
        elif type(part) is not PlainAttention:
            raise ModelError(
                f"`{name}` was an nn.MultiheadAttention when the model was loaded, and is none now",
                where=where,
                hint="the factory or its package has changed since: load the model again",
            )
    replace_modules(module, written)
    for owner in module.modules():
        if isinstance(owner, nn.TransformerEncoder) and any(type(part) is PlainAttention for part in owner.modules()):
            owner.use_nested_tensor = False  # torch's own attention alone computes with such


def _candidates(module: nn.Module) -> list[str]:
    holders = Counter(
        tensor.untyped_storage().data_ptr()
        for part in module.modules()
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))
    )
    return [name for name, part in module.named_modules() if name and _can_be_written(part, holders)]


def _can_be_written(part: nn.Module, holders: Counter[int]) -> bool:
    if type(part) is not nn.MultiheadAttention or part.add_zero_attn or part.bias_k is not None:
        return False
    plain = set(part._parameters) <= _PARAMETERS and set(part._modules) == {"out_proj"} and not part._buffers
    out = part.out_proj
    if not plain or type(out) not in (NonDynamicallyQuantizableLinear, nn.Linear) or out._buffers:
        return False
    touched = any(getattr(one, hooks) for one in (part, out) for hooks in _HOOKS) or "forward" in vars(part)
    return not touched and all(holders[parameter.untyped_storage().data_ptr()] == 1 for parameter in part.parameters())


def _answer_alike(module: nn.Module, names: Sequence[str], example: Tensor, where: str) -> bool:
    """Whether the model answers the same with these modules as plain layers: as it is, and with other weights (those
    that are zero hide what they multiply); by torch's fast path, and by the one that trains."""
    return all(_same_with(module, names, example, where, drawn=drawn) for drawn in (False, True))


def _same_with(module: nn.Module, names: Sequence[str], example: Tensor, where: str, *, drawn: bool) -> bool:
    what = "the model does not run"
    for dtype in _SAME:
        try:
            with users_code(what, where), fixed_seed(), torch.no_grad():
                before = copy.deepcopy(module).to(dtype)
                if drawn:
                    _draw(before)
                x = example.to(dtype)
                expected = [_asked(before, x, fast=fast) for fast in (True, False)]
        except ModelError:
            continue  # of single precision by its code: asked in that
        try:
            with users_code(what, where), fixed_seed(), torch.no_grad():
                write_plainly(before, names, where)
                answer = as_one(before(x.clone()))
        except ModelError:
            return False  # it reads what an nn.MultiheadAttention has
        return all(_alike(answer, one) for one in expected)
    return False


def _asked(module: nn.Module, x: Tensor, *, fast: bool) -> Tensor:
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast and enabled)
    try:
        return as_one(module(x.clone()))
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _draw(module: nn.Module) -> None:
    """Move every weight a little, reproducibly."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.is_floating_point():
            size = 0.1 if parameter.dim() < 2 else 0.1 * parameter[0].numel() ** -0.5
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def _alike(answer: Tensor, expected: Tensor) -> bool:
    if answer.shape != expected.shape:
        return False
    return bool((answer - expected).abs().max() <= _SAME[expected.dtype] * expected.abs().max().clamp(min=1))
