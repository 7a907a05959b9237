"""nn.MultiheadAttention becomes plain layers at load where the answers stay what they are, and can be pruned then."""

from __future__ import annotations

import itertools
from pathlib import Path

import attention_nets
import pytest
import torch
from facts import refused
from torch import nn

import edgeprune
from edgeprune.errors import ModelError
from edgeprune.graph.trace import operator_name, trace
from edgeprune.models.attention import PlainAttention
from edgeprune.models.checkpoint import load_state, save_state
from edgeprune.models.copies import check_copies
from edgeprune.models.load import build, load
from edgeprune.models.spec import Model, ModelSpec
from edgeprune.space.branches import branches_masked, fold_removed, remove_branches
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units

FILE = Path(attention_nets.__file__)
SIZE = (3, 8, 8)
WRITTEN = {
    **dict.fromkeys(
        ("Tokens", "Unweighted", "Weights", "TokensFirst", "Masked", "Causal", "Crossed", "Reused", "Residual"), 1
    ),
    **{"Encoder": 2, "Padded": 2, "Decoder": 2, "Mixed": 1},
}
KEPT = ["PaddingRead", "Subclassed", "Biased", "ZeroAttended", "Called", "Hooked", "Tied", "OneMemory", "Hidden"]


def loaded(name: str, **options: object) -> Model:
    return load(f"{FILE}:{name}", input_size=SIZE, **options)


def made(name: str) -> nn.Module:
    """As its factory makes it, with weights that all count."""
    torch.manual_seed(3)
    module: nn.Module = getattr(attention_nets, name)()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize("name", [*WRITTEN, *KEPT])
def test_the_answers_are_what_they_were(name: str, tmp_path: Path) -> None:
    original = made(name)
    torch.save(original.state_dict(), tmp_path / "trained.pth")
    model = loaded(name, checkpoint=tmp_path / "trained.pth")
    count = WRITTEN.get(name, 0)
    assert sum(isinstance(part, PlainAttention) for part in model.module.modules()) == count
    assert [said for said in model.said if "MultiheadAttention" in said] == (
        [f"{count} nn.MultiheadAttention written as plain layers"] if count else []
    )
    x = model.example_input(3, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(model.module.double()(x), original.double()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*WRITTEN, *KEPT])
def test_its_copies_are_the_model_and_its_state_fits_again(name: str, tmp_path: Path) -> None:
    if name != "OneMemory":  # refused: its copies keep the two apart
        assert check_copies(loaded(name)) == []
    model = loaded(name)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(1.5)
    save_state(tmp_path / "plain.safetensors", model.module)
    again = build(ModelSpec.model_validate_json(model.spec.model_dump_json()))
    load_state(again, tmp_path / "plain.safetensors")
    from_checkpoint = loaded(name, checkpoint=tmp_path / "plain.safetensors").module
    x = model.example_input(2)
    with torch.no_grad():
        assert torch.equal(again(x), model.module(x))
        assert torch.equal(from_checkpoint(x), model.module(x))


def test_a_record_that_names_other_modules_is_refused() -> None:
    spec = loaded("Encoder").spec
    for name in ("head", "", "nowhere", "encoder.layers.7.self_attn"):
        with refused(ModelError, "MultiheadAttention"):
            build(spec.model_copy(update={"written_plainly": (name,)}))


def test_a_checkpoint_that_fits_neither_is_told_in_the_factorys_names(tmp_path: Path) -> None:
    state = made("Tokens").state_dict()
    del state["attend.in_proj_weight"]
    torch.save(state, tmp_path / "part.pth")
    with refused(ModelError, "attend.in_proj_weight", tmp_path / "part.pth"):
        loaded("Tokens", checkpoint=tmp_path / "part.pth")


def test_frozen_weights_stay_frozen() -> None:
    source = nn.MultiheadAttention(8, 2)
    source.in_proj_weight.requires_grad_(False)
    plain = PlainAttention(source)
    assert [name for name, p in plain.named_parameters() if not p.requires_grad] == [
        *("q_proj.weight", "k_proj.weight", "v_proj.weight")
    ]
    assert (plain.embed_dim, plain.kdim, plain.vdim, plain.head_dim) == (8, 8, 8, 4)


MASKS = {
    "none": {},
    "2d bool": {"attn_mask": torch.ones(4, 5).triu(1).bool()},
    "2d float": {"attn_mask": torch.arange(20.0, dtype=torch.float64).reshape(4, 5) / 7},
    "3d": {"attn_mask": torch.arange(120.0, dtype=torch.float64).reshape(6, 4, 5) / 50},
    "padding": {"key_padding_mask": torch.arange(5).expand(3, 5) >= torch.tensor([[5], [3], [4]])},
    "both": {
        "attn_mask": torch.ones(4, 5).triu(2).bool(),
        "key_padding_mask": torch.arange(5).expand(3, 5) >= torch.tensor([[5], [3], [4]]),
    },
}
OPTIONS = [{}, {"bias": False}, {"kdim": 7, "vdim": 9}, {"batch_first": True}]
ASKED = [{"need_weights": False}, {"need_weights": True}, {"average_attn_weights": False}]


@pytest.mark.parametrize("mask", MASKS)
def test_it_computes_what_torchs_module_does(mask: str) -> None:
    """In training mode, too, and unbatched; with the gradients."""
    for number, (options, asked) in enumerate(itertools.product(OPTIONS, ASKED)):
        torch.manual_seed(number)
        source = nn.MultiheadAttention(8, 2, **options).double()
        nn.init.normal_(source.out_proj.weight)
        plain = PlainAttention(source)
        q, k, v = (torch.randn(n, 3, w).double() for n, w in ((4, 8), (5, source.kdim), (5, source.vdim)))
        if source.batch_first:
            q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        _compare(source, plain, (q, k, v), {**MASKS[mask], **asked})
        one = tuple(t[0] if source.batch_first else t[:, 0] for t in (q, k, v))
        given = dict(MASKS[mask])
        if mask == "3d":
            given["attn_mask"] = given["attn_mask"][:2]
        if "key_padding_mask" in given:
            given["key_padding_mask"] = given["key_padding_mask"][0]
        _compare(source, plain, one, {**given, **asked})


def _compare(source: nn.Module, plain: nn.Module, tokens: tuple[torch.Tensor, ...], asked: dict[str, object]) -> None:
    results = []
    for module in (source, plain):
        asks = [t.detach().clone().requires_grad_() for t in tokens]
        x, maps = module(*asks, **asked)
        results.append([x, maps, *torch.autograd.grad(x.square().sum(), asks)])
    for wanted, got in zip(*results, strict=True):
        assert (wanted is None) == (got is None)
        assert wanted is None or torch.allclose(wanted, got, rtol=0, atol=1e-12)


def test_dropout_is_for_training_alone() -> None:
    plain = PlainAttention(nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True))
    x = torch.randn(2, 4, 8)
    for need in (True, False):
        assert torch.equal(*(plain.eval()(x, x, x, need_weights=need)[0] for _ in range(2)))
        assert not torch.equal(*(plain.train()(x, x, x, need_weights=need)[0] for _ in range(2)))


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        *((name, ()) for name in ("Tokens", "Unweighted", "TokensFirst", "Masked", "Causal", "Crossed", "Encoder")),
        *(("Decoder", ()), ("Padded", ()), ("Mixed", ()), ("Reused", ()), ("Weights", ("heads",))),
    ],
)
def test_heads_and_widths_are_found_and_cut_exactly(name: str, missing: tuple[str, ...]) -> None:
    model = loaded(name)
    module = model.module.double()
    x = model.example_input(2, dtype=torch.float64)
    structure = find_structure(module, x)
    for path in model.spec.written_plainly:
        roles = {group.id.rpartition(":")[2] for group in structure.groups if group.id.startswith(f"{path}:")}
        assert roles == {"heads", "qk", "v"} - set(missing)
    for group in structure.groups:
        removed = {group.id: list(range(group.size // 2))}
        _check_cut(module, structure, removed, x)
    _check_cut(module, structure, {group.id: [group.size - 1] for group in structure.groups}, x)


def test_maps_that_nobody_reads_cost_nothing() -> None:
    kinds = []
    for name in ("Tokens", "Weights"):
        model = loaded(name)
        layers = find_structure(model.module, model.example_input()).layers
        kinds.append([layer.operation.kind for layer in layers].count("mean"))
    assert kinds == [1, 2]


def _check_cut(module: nn.Module, structure: object, removed: dict[str, list[int]], x: torch.Tensor) -> None:
    pruned = remove_units(module, structure, removed)
    with torch.no_grad():
        assert torch.allclose(pruned(x), mask_units(module, structure, removed)(x), rtol=0, atol=1e-12)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "branch"),
    [
        ("Residual", "attend:branch"),
        *(("Encoder", f"encoder.layers.{n}.dropout1:branch") for n in range(2)),
        ("Decoder", "decoder.layers.0.dropout1:branch"),
    ],
)
def test_attention_can_go_as_a_branch(name: str, branch: str) -> None:
    model = loaded(name)
    module, x = model.module.double(), model.example_input(3, dtype=torch.float64)
    structure = find_structure(module, x[:1])
    without = remove_branches(module, structure, [branch])
    assert len(list(without.parameters())) < len(list(module.parameters()))
    with branches_masked(module, structure, [branch]), torch.no_grad():
        assert torch.equal(without(x), module(x))
        assert torch.equal(without(x[:1]), module(x[:1]))
    program = trace(without, x)
    fold_removed(program)
    assert "zeros_like" not in {operator_name(node) for node in program.graph.nodes}


def test_torchvisions_transformer_is_prunable() -> None:
    arguments = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "mlp_dim": 64}
    source = "torchvision.models:VisionTransformer"
    model = edgeprune.load(source, arguments={**arguments, "num_classes": 10}, input_size=(3, 32, 32))
    assert "2 nn.MultiheadAttention written as plain layers" in model.said
    x = model.example_input(2)
    sizes = find_structure(model.module, x).sizes
    attention = {
        f"encoder.layers.encoder_layer_{n}.self_attention:{role}": size
        for n in range(2)
        for role, size in (("heads", 4), ("qk", 8), ("v", 8))
    }
    assert attention.items() <= sizes.items()
    assert sizes["conv_proj:out"] == 32
