"""Copies of modules: what `copy.deepcopy` would make, with the tensors shared that are to be."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peers_zoo import PEERS
from structure_zoo import ZOO
from torch import Tensor, nn

from edgeprune.graph.sharing import copy_sharing, copy_sharing_all
from edgeprune.models.timm_import import import_timm


class Odd(nn.Module):
    """A part in two places, itself in a list, a function, an object, tied weights, a hook, a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.again, self.listed = self.a, [self.a, self]
        self.settings, self.sizes = SimpleNamespace(deep=[1, {"x": 2}]), {"a": (1, [2]), 3: {4, 5}}
        self.alias = self.settings
        self.tensor, self.function = torch.ones(2), torch.relu
        self.register_buffer("not_saved", torch.zeros(2), persistent=False)
        self.own = Own()
        self.a.register_forward_hook(negated)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.again(x) + self.b(x) + self.tensor.sum() + self.own(x))


class Own(nn.Module):
    def __deepcopy__(self, memo: dict[int, Any]) -> Own:
        made = Own()
        made.made_here = True
        return made

    def forward(self, x: Tensor) -> Tensor:
        return x


def negated(_: nn.Module, __: object, out: Tensor) -> Tensor:
    return -out


def test_a_copy_shares_what_it_is_told_and_nothing_else() -> None:
    torch.manual_seed(0)
    module, x = Odd().eval(), torch.randn(3, 4)
    made = copy_sharing(module, [module.a.weight])
    assert made.a.weight is made.b.weight is module.a.weight
    assert made.a.bias is not module.a.bias
    assert made.a is made.again is made.listed[0]
    assert made.listed[1] is made
    assert made.settings is made.alias
    assert made.settings is not module.settings
    made.settings.deep[1]["x"] = made.sizes["a"][1][0] = 7
    made.sizes[3].add(6)
    assert (module.settings.deep, module.sizes) == ([1, {"x": 2}], {"a": (1, [2]), 3: {4, 5}})
    assert made.own.made_here
    assert made.state_dict().keys() == module.state_dict().keys()
    assert torch.equal(made(x), module(x))
    with torch.no_grad():
        made.tensor.add_(1)
        made.a.bias.add_(1)
    before = copy.deepcopy(module)
    made.register_forward_hook(negated)
    made.a._forward_hooks.clear()
    made.train()
    assert torch.equal(module(x), before(x))
    assert not module.training


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_efficientnet", *ZOO, *PEERS])
def test_a_copy_has_what_deepcopy_has(name: str) -> None:
    make = {**ZOO, **PEERS}.get(name) or (lambda: import_timm().create_model(name))
    module = make().eval()
    made, wanted = copy_sharing_all(module), copy.deepcopy(module)
    assert repr(made) == repr(wanted)
    for (path, part), (_, other) in zip(made.named_modules(), wanted.named_modules(), strict=True):
        assert list(vars(part)) == list(vars(other)), path
        assert type(part) is type(other)
        assert [type(value) for value in vars(part).values()] == [type(value) for value in vars(other).values()]
    assert all(a is b for a, b in zip(made.parameters(), module.parameters(), strict=True))
    assert all(a is b for a, b in zip(made.buffers(), module.buffers(), strict=True))
    originals = {id(part) for part in module.modules()}
    assert not any(id(part) in originals for part in made.modules())
