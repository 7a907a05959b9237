"""Heads, query-key dimensions, value dimensions and the embedding are units of their own."""

from __future__ import annotations

import pytest
import torch
from attention_zoo import ATTENTION, HEADS, ComputedAttention, FusedAttention, SeparateAttention, Transformer
from structure_zoo import image, randomized
from torch import Tensor

from edgeprune.models.timm_import import import_timm
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units
from edgeprune.space.trial import answers, difference


def sizes(name: str) -> dict[str, int]:
    return find_structure(randomized(ATTENTION[name]()), image()).sizes


@pytest.mark.parametrize("name", ["fused attention", "computed attention", "generated attention"])
def test_one_layer_for_all_has_heads_and_head_dims(name: str) -> None:
    assert sizes(name) == {"patches:out": 12, "attn:heads": 3, "attn:head_dims": 4, "fc1:out": 10}


@pytest.mark.parametrize("name", ["separate attention", "linear attention", "cosine attention"])
def test_query_key_and_value_dims_go_apart(name: str) -> None:
    assert sizes(name) == {"patches:out": 12, "attn:heads": 3, "attn:qk": 6, "attn:v": 8, "fc1:out": 10}


def test_a_sum_that_masked_channels_count_in_is_frozen() -> None:
    structure = find_structure(randomized(ATTENTION["kernel attention"]()), image())
    assert "attn:qk" not in structure.sizes
    (frozen,) = (entry for entry in structure.frozen if entry.name == "attn:qk")
    assert "would still count in the sum of matmul" in frozen.reason


def test_attributes_and_the_fused_flag_follow() -> None:
    module = randomized(ATTENTION["fused attention"]())
    structure = find_structure(module, image())
    heads = remove_units(module, structure, {"attn:heads": [1]})
    assert isinstance(heads.attn, FusedAttention)
    assert (heads.attn.num_heads, heads.attn.head_dim, heads.attn.attn_dim) == (HEADS - 1, 4, 8)
    assert heads.attn.fused_attn  # the scale stays right: heads are as wide as before
    dims = remove_units(module, structure, {"attn:head_dims": [0, 3]})
    assert (dims.attn.num_heads, dims.attn.head_dim, dims.attn.attn_dim) == (HEADS, 2, 6)
    assert not dims.attn.fused_attn
    assert dims.attn.scale == module.attn.scale
    assert module.attn.fused_attn
    assert module.attn.num_heads == HEADS


def test_the_embedding_goes_from_every_layer_on_the_residual_stream() -> None:
    module = randomized(ATTENTION["fused attention"]())
    structure = find_structure(module, image())
    pruned = remove_units(module, structure, {"patches:out": [0, 5, 7]})
    assert pruned.positions.shape == (1, 5, 9)
    assert pruned.token.shape == (1, 1, 9)
    assert pruned.norm1.normalized_shape == (9,)
    assert pruned.attn.qkv.weight.shape == (36, 9)
    assert pruned.head.in_features == 9
    torch.jit.script(pruned.norm1)


def test_group_norm_loses_channels_of_every_group() -> None:
    module = randomized(ATTENTION["group norms"]())
    structure = find_structure(module, image())
    assert structure.sizes == {"conv1:out": 3, "conv2:out": 8, "conv3:out": 4}
    pruned = remove_units(module, structure, {"conv1:out": [1]})
    assert (pruned.norm1.num_channels, pruned.norm1.num_groups) == (8, 4)


def test_attention_and_mlp_are_branches_of_their_block() -> None:
    module = import_timm().create_model("vit_tiny_patch16_224", img_size=32, depth=2)
    structure = find_structure(randomized(module), image(32))
    assert [branch.id for branch in structure.branches] == [
        *("blocks.0.attn:branch", "blocks.0.mlp:branch", "blocks.1.attn:branch", "blocks.1.mlp:branch"),
    ]
    attention = structure.branches[0]
    assert attention.modules == ("blocks.0.norm1",)
    assert set(attention.groups) == {"blocks.0.attn:heads", "blocks.0.attn:qk", "blocks.0.attn:v"}


def test_a_size_that_the_code_works_out_is_put_right() -> None:
    module = randomized(ATTENTION["computed attention"]())
    structure = find_structure(module, image())
    assert [size.number for size in structure.code_sizes] == [4, 2]  # c // self.num_heads, and c
    pruned = remove_units(module, structure, {"attn:heads": [0], "patches:out": [1, 2]})
    assert type(pruned.attn) is not ComputedAttention
    assert isinstance(pruned.attn, ComputedAttention)
    assert type(module.attn) is ComputedAttention
    assert pruned(image()).shape == (2, 5)
    again = remove_units(pruned, find_structure(pruned, image()), {"attn:heads": [0]})
    assert type(again.attn) is type(pruned.attn)  # mended once
    assert type(remove_units(module, structure, {}).attn) is ComputedAttention


class Folded(SeparateAttention):
    """Heads folded into the batch: of one image, the sizes of that look like heads."""

    def forward(self, x: Tensor) -> Tensor:
        b, n = x.shape[:2]
        q, k, v = (self.heads(f(x)).reshape(b * self.num_heads, n, -1) for f in (self.q, self.k, self.v))
        count = q.shape[0]
        q = q.reshape(count, n, q.shape[2])
        x = (q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(x.reshape(b, self.num_heads, n, -1).transpose(1, 2).flatten(2))


def test_a_size_that_depends_on_the_batch_is_left_alone() -> None:
    module = randomized(Transformer(Folded))
    structure = find_structure(module, image(batch=1))
    removed = {group.id: [0] for group in structure.groups}
    assert "attn:heads" in removed
    pruned, masked = remove_units(module, structure, removed), mask_units(module, structure, removed)
    assert difference(answers(pruned, image(batch=3)), answers(masked, image(batch=3))) < 1e-12
