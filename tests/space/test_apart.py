"""timm's attention written apart: the same answers, and query-key and value dimensions that go each for themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from structure_zoo import image, randomized
from torch import nn

from edgeprune.models.timm_import import import_timm
from edgeprune.space.apply import apply_plan, make_plan
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units
from edgeprune.space.plan import read_plan
from edgeprune.space.recasts import apart
from edgeprune.space.subnet import Subnet


def vit(**options: object) -> nn.Module:
    made = import_timm().create_model("vit_tiny_patch16_224", img_size=32, depth=2, **options)
    return randomized(made).double().eval()


@pytest.mark.parametrize(
    "options", [{}, {"qk_norm": True}, {"scale_attn_norm": True}], ids=["plain", "qk norm", "norm"]
)
@pytest.mark.parametrize("fused", [True, False])
def test_it_answers_as_before(options: dict[str, object], fused: bool) -> None:
    module = vit(**options)
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused
    x = image(32)
    torch.testing.assert_close(apart(module)(x), module(x), rtol=1e-12, atol=1e-12)
    attention, other = module.blocks[0].attn, apart(module).blocks[0].attn
    tokens = torch.randn(2, 5, 192, dtype=torch.float64)
    for arguments in ({"is_causal": True}, {"attn_mask": torch.randn(5, 5, dtype=torch.float64)}):
        torch.testing.assert_close(other(tokens, **arguments), attention(tokens, **arguments), rtol=1e-12, atol=1e-12)


def test_nothing_of_the_given_module_is_changed_or_copied() -> None:
    module = vit()
    other = apart(module)
    assert type(module.blocks[0].attn) is not type(other.blocks[0].attn)
    assert not hasattr(module.blocks[0].attn, "q_width")
    assert other.blocks[0].attn.qkv.weight is module.blocks[0].attn.qkv.weight
    assert apart(other) is other
    plain = nn.Linear(2, 2)
    assert apart(plain) is plain


@pytest.mark.parametrize("removed", [{"qk": [0, 5, 63]}, {"v": [1, 2]}, {"qk": [3], "v": [0, 7, 9], "heads": [1]}])
@pytest.mark.parametrize("options", [{}, {"qk_norm": True}], ids=["plain", "qk norm"])
def test_each_width_goes_for_itself(removed: dict[str, list[int]], options: dict[str, object]) -> None:
    module, x = vit(**options), image(32)
    structure = find_structure(module, x)
    assert {"blocks.0.attn:heads", "blocks.0.attn:qk", "blocks.0.attn:v"} <= structure.sizes.keys()
    units = {f"blocks.0.attn:{role}": gone for role, gone in removed.items()}
    pruned, masked = remove_units(module, structure, units), mask_units(module, structure, units)
    torch.testing.assert_close(pruned(x), masked(x), rtol=1e-12, atol=1e-12)
    attention = pruned.blocks[0].attn
    heads = 3 - len(removed.get("heads", ()))
    widths = [heads * (64 - len(removed.get(role, ()))) for role in ("qk", "qk", "v")]
    assert [attention.q_width, attention.k_width, attention.v_width] == widths
    assert (attention.num_heads, attention.attn_dim, attention.proj.in_features) == (heads, widths[2], widths[2])
    assert attention.fused_attn is ("qk" not in removed)  # torch takes the scale from the width
    assert type(module.blocks[0].attn) is type(pruned.blocks[1].attn)  # what loses nothing stays what it is
    gradients = []
    for net in (pruned, masked):
        net.zero_grad()
        net(x).square().sum().backward()
        gradients.append(net.blocks[1].attn.qkv.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_it_is_pruned_again_exported_and_rebuilt(tmp_path: Path) -> None:
    module, x = vit().float(), image(32).float()
    structure = find_structure(module, x)
    plan = make_plan("test:vit", module, structure, Subnet({"blocks.0.attn:v": (0, 1), "blocks.1.attn:qk": (5,)}))
    pruned = apply_plan(module, plan, x)
    again = find_structure(pruned, x)
    assert (again.sizes["blocks.0.attn:v"], again.sizes["blocks.1.attn:qk"]) == (62, 63)
    twice = remove_units(pruned, again, {"blocks.0.attn:qk": [1, 2]})
    assert twice.blocks[0].attn.q_width == 3 * 62
    exported = torch.export.export(twice, (x,), strict=False).module()
    torch.testing.assert_close(exported(x), twice(x))
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    rebuilt = apply_plan(vit().float(), read_plan(tmp_path / "plan.json"), x)
    rebuilt.load_state_dict(pruned.state_dict())
    assert torch.equal(rebuilt(x), pruned(x))
