"""NViT: its score is the derivative of real gates, and its choice takes what is least worth until the target is met."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from small_vit import small_vit
from torch import nn
from toy_structures import problem

from edgeprune.errors import ModelError, TargetError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.cost import MacsCost
from edgeprune.methods.nvit import FLOOR, GroupsByWorth, dimensions, published_slopes
from edgeprune.methods.taylor import score_taylor
from edgeprune.models.timm_import import import_timm
from edgeprune.space.cut import remove_units
from edgeprune.space.decisions import Limits
from edgeprune.space.find import find_structure
from edgeprune.space.keep import hold
from edgeprune.space.ranking import ByScore
from edgeprune.space.subnet import Subnet
from edgeprune.space.units import Structure

HEADS, DIMS, EMB, BLOCKS = 4, 8, 32, 2


@pytest.fixture(scope="module")
def vit() -> Any:
    net = small_vit().double()
    for parameter in net.parameters():  # no bias is 0, no norm is 1
        parameter.data = torch.randn_like(parameter) * 0.3
    return net


@pytest.fixture(scope="module")
def structure(vit: Any) -> Structure:
    return find_structure(vit.float(), torch.randn(2, 1, 16, 16))


def batch(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(6, 1, 16, 16, dtype=torch.float64), torch.randint(0, 10, (6,))


def gated(vit: Any, weights: dict[str, Callable[[torch.Tensor], torch.Tensor]], units: int) -> np.ndarray:
    """d loss / d z at z = 1, where each named weight is multiplied by what its function makes of z, (units,)."""
    gates = torch.ones(units, dtype=torch.float64, requires_grad=True)
    images, targets = batch()
    changed = {name: vit.get_parameter(name).detach() * shaped(gates) for name, shaped in weights.items()}
    answers = torch.func.functional_call(vit.double(), changed, (images,))
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(answers, targets), gates)
    return slope.numpy()


def qkv_rows(shaped: Callable[[torch.Tensor], torch.Tensor], which: tuple[int, ...]) -> Callable[..., torch.Tensor]:
    """What multiplies a fused weight of (3, heads, dimensions) rows: the gates in the parts of `which`, 1 elsewhere."""

    def rows(z: torch.Tensor) -> torch.Tensor:
        ones = torch.ones(HEADS, DIMS, dtype=torch.float64)
        return torch.stack([shaped(z) * ones if part in which else ones for part in range(3)]).reshape(-1, 1)

    return rows


def test_a_vit_has_the_five_dimensions(structure: Structure) -> None:
    found = dimensions(structure)
    assert [name for name, kind in found.items() if kind == "EMB"] == ["patch_embed.proj:out"]
    for kind in ("H", "QK", "V", "MLP"):
        assert sum(one == kind for one in found.values()) == BLOCKS


def test_the_score_is_the_squared_derivative_of_gates_on_the_weights_that_the_paper_names(
    vit: Any, structure: Structure
) -> None:
    net = vit.double()
    scores = score_taylor(net, structure, [batch()], slopes=published_slopes(net, structure))
    qkv, name = "blocks.1.attn.qkv.weight", "blocks.1.attn"
    heads = gated(net, {qkv: qkv_rows(lambda z: z[:, None], (0, 1, 2))}, HEADS)
    np.testing.assert_allclose(scores[f"{name}:heads"], (heads / 6) ** 2, rtol=1e-9)
    both = gated(net, {qkv: qkv_rows(lambda z: z[None, :], (0, 1))}, DIMS)
    np.testing.assert_allclose(scores[f"{name}:qk"], (both / 2 / 2) ** 2, rtol=1e-9)
    value = gated(net, {qkv: qkv_rows(lambda z: z[None, :], (2,))}, DIMS)
    np.testing.assert_allclose(scores[f"{name}:v"], value**2, rtol=1e-9)
    hidden = gated(net, {"blocks.1.mlp.fc1.weight": lambda z: z[:, None]}, 2 * EMB)
    np.testing.assert_allclose(scores["blocks.1.mlp.fc1:out"], hidden**2, rtol=1e-9)


def test_the_embedding_is_gated_where_it_is_written_and_where_it_is_read(vit: Any, structure: Structure) -> None:
    net = vit.double()
    scores = score_taylor(net, structure, [batch()], slopes=published_slopes(net, structure))
    weights: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "patch_embed.proj.weight": lambda z: z.view(-1, 1, 1, 1),
        "head.weight": lambda z: z[None, :],
    }
    for block in range(BLOCKS):
        weights |= {f"blocks.{block}.{name}.weight": lambda z: z[:, None] for name in ("attn.proj", "mlp.fc2")}
        weights |= {f"blocks.{block}.{name}.weight": lambda z: z[None, :] for name in ("attn.qkv", "mlp.fc1")}
    slope = gated(net, weights, EMB)
    np.testing.assert_allclose(scores["patch_embed.proj:out"], (slope / BLOCKS) ** 2, rtol=1e-9)


def test_without_biases_query_and_key_say_the_same_of_a_dimension(structure: Structure) -> None:
    net = small_vit(3).double()
    for block in net.blocks:
        block.attn.qkv.bias.data.zero_()
    qkv = "blocks.0.attn.qkv.weight"
    query, key = (gated(net, {qkv: qkv_rows(lambda z: z[None, :], (part,))}, DIMS) for part in (0, 1))
    np.testing.assert_allclose(query, key, rtol=1e-6, atol=1e-12)
    scores = score_taylor(net, structure, [batch()], slopes=published_slopes(net, structure))
    np.testing.assert_allclose(scores["blocks.0.attn:qk"], (query / 2) ** 2, rtol=1e-6, atol=1e-24)


def test_a_cut_of_qk_or_v_takes_the_same_index_out_of_all_heads(vit: Any, structure: Structure) -> None:
    """Head alignment: what stays computes what the whole computes with these dimensions at zero."""
    net = vit.double()
    cut = remove_units(net, structure, {"blocks.0.attn:qk": (1, 5), "blocks.0.attn:v": (0,)})
    zeroed = small_vit().double()
    zeroed.load_state_dict(net.state_dict())
    rows = zeroed.blocks[0].attn.qkv
    for part, gone in ((0, (1, 5)), (1, (1, 5)), (2, (0,))):
        for head in range(HEADS):
            for index in gone:
                row = (part * HEADS + head) * DIMS + index
                rows.weight.data[row], rows.bias.data[row] = 0.0, 0.0
    images, _ = batch(4)
    assert cut.blocks[0].attn.scale == net.blocks[0].attn.scale == DIMS**-0.5
    torch.testing.assert_close(cut(images), zeroed(images), rtol=1e-10, atol=1e-12)


def lost(scores: dict[str, np.ndarray], subnet: Subnet) -> float:
    return sum(float(scores[name][list(units)].sum()) for name, units in subnet.units.items())


@given(share=st.floats(0.15, 0.95), seed=st.integers(0, 99), eta=st.sampled_from([None, 0.0, 1e-9, 1e-3]))
@settings(max_examples=40, deadline=None)
def test_the_target_is_met_and_the_way_there_only_ever_takes(
    structure: Structure, share: float, seed: int, eta: float | None
) -> None:
    rng = np.random.default_rng(seed)
    scores = {group.id: rng.exponential(size=group.size) for group in structure.groups}
    asked = problem(structure, ByScore(scores), MacsCost(), lambda _: 0.0, Limits(2, 2))
    chooser = GroupsByWorth(asked, scores, eta)
    budget = share * asked.whole_cost
    if chooser.smallest().cost > budget:
        with refused(TargetError):
            chooser.within(budget)
        return
    chosen = chooser.within(budget)
    assert chosen.cost <= budget
    kept, allowed = chosen.subnet.kept(structure), asked.space.widths
    assert all(kept[name] in allowed[name] for name in kept)
    wider = chooser.within(budget * 1.2)
    assert lost(scores, wider.subnet) <= lost(scores, chosen.subnet) * (1 + 1e-12)
    for name, units in chosen.subnet.units.items():  # the lowest of each group
        assert max(scores[name][list(units)]) <= min(np.delete(scores[name], list(units)), default=np.inf)


def test_with_no_price_of_latency_the_least_score_goes_first(structure: Structure) -> None:
    scores = {group.id: np.full(group.size, 1.0) for group in structure.groups}
    scores["blocks.1.mlp.fc1:out"][:] = 1e-6
    asked = problem(structure, ByScore(scores), MacsCost(), lambda _: 0.0, Limits(2, 2))
    assert set(GroupsByWorth(asked, scores, 0.0).within(0.95 * asked.whole_cost).subnet.units) == {
        "blocks.1.mlp.fc1:out"
    }


class Tiles:
    """Costs of kernels that work on whole tiles of 32 channels."""

    def cost(self, operation: OpSignature) -> float:
        return float(-(-operation.in_channels // 32) * -(-operation.out_channels // 32))


def test_a_cut_within_a_tile_does_not_block_its_group(structure: Structure) -> None:
    """One step of 16 hidden units of 64 saves nothing; two do, and lose least."""
    scores = {group.id: np.full(group.size, 1.0) for group in structure.groups}
    for block in range(BLOCKS):
        scores[f"blocks.{block}.mlp.fc1:out"][:] = 1e-6
    asked = problem(structure, ByScore(scores), Tiles(), lambda _: 0.0, Limits(8, 8))
    chosen = GroupsByWorth(asked, scores).within(0.9 * asked.whole_cost)
    assert {name.rpartition(".")[2] for name in chosen.subnet.units} == {"fc1:out"}


def test_where_latency_is_no_reason_the_least_score_goes(structure: Structure) -> None:
    """Below the floors no cut is worth its seconds."""
    scores = {group.id: np.full(group.size, 100.0) for group in structure.groups}
    scores["blocks.1.attn:v"][:] = 1e-6
    asked = problem(structure, ByScore(scores), MacsCost(), lambda _: 0.0, Limits(1, 1))
    chooser = GroupsByWorth(asked, scores)
    with refused(TargetError):
        chooser.within(0.0)
    order = [
        (name, state.kept[name])
        for before, state in itertools.pairwise(chooser._path)
        for name in state.kept
        if state.kept[name] < before.kept[name]
    ]
    below = [name for name, kept in order if kept < FLOOR[dimensions(structure)[name]]]
    assert below[0] == "blocks.1.attn:v"


def test_a_gate_is_no_stream() -> None:
    """The hidden channels of a block with squeeze-excitation are multiplied by it, and added to nothing."""
    net = import_timm().create_model("coatnet_nano_rw_224", num_classes=10).eval()
    named = dimensions(find_structure(net, torch.randn(1, 3, 224, 224)))
    assert named["stages.0.blocks.0.conv1_1x1:out"] == "MLP"
    assert "EMB" in named.values()


def test_what_is_kept_changes_no_score_of_the_rest(structure: Structure) -> None:
    net = small_vit().double()
    held = hold(structure, ["blocks.0.attn.qkv"])
    slopes = [published_slopes(net, one)["patch_embed.proj:out"] for one in (structure, held)]
    assert slopes[0].share == slopes[1].share == 1 / BLOCKS


def test_a_model_without_attention_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    structure = find_structure(net, torch.randn(1, 1, 8, 8))
    with refused(ModelError, "attention"):
        published_slopes(net, structure)
