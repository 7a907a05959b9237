"""What was found in a model is not looked for again, for as long as the model stays as it is."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from structure_zoo import ResNet, image, randomized
from torch import Tensor, nn

import edgeprune.space.find as finding
from edgeprune.space.apply import apply_plan, make_plan
from edgeprune.space.find import find_structure
from edgeprune.space.subnet import Subnet


class Scaled(nn.Module):
    """What can go depends on attributes and a helper, too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 2)
        self.skips, self.settings, self.act = True, {"offsets": [0.0]}, torch.relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.a(x))
        return self.head((y + self.b(y) if self.skips else self.b(y)).mean((2, 3)) + self.settings["offsets"][0])


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that were recorded."""
    seen: list[nn.Module] = []
    record = finding.record

    def counted(module: nn.Module, example: Tensor) -> Any:
        seen.append(module)
        return record(module, example)

    monkeypatch.setattr(finding, "record", counted)
    return seen


def test_one_search_for_a_model_and_all_plans_of_it(searches: list[nn.Module]) -> None:
    module, x = randomized(ResNet()), image()
    structure = find_structure(module, x)
    assert find_structure(module, torch.randn_like(x)) is structure
    for unit in (0, 1):
        apply_plan(module, make_plan("here:ResNet", module, structure, Subnet({"stem.0:out": (unit,)})), x)
    module.train()
    assert find_structure(module, x) is structure  # the mode says nothing of what can go
    assert len(searches) == 1
    assert find_structure(copy.deepcopy(module), x).sizes == structure.sizes
    assert len(searches) == 2


def test_another_input_is_another_search(searches: list[nn.Module]) -> None:
    module = Scaled().eval()
    first = find_structure(module, torch.zeros(1, 3, 8, 8))
    other = find_structure(module, torch.zeros(1, 3, 6, 8))
    assert other.layers[0].operation.height == 6
    assert find_structure(module, torch.zeros(1, 3, 8, 8)) is first
    assert len(searches) == 2
    module.double()
    find_structure(module, torch.zeros(1, 3, 8, 8).double())
    assert len(searches) == 3


def narrower(module: Scaled) -> None:
    module.a, module.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 1)
    module.skips = False


def other_weights(module: Scaled) -> None:
    with torch.no_grad():
        module.a.weight.mul_(2)


def set_data(module: Scaled) -> None:
    module.a.weight.data = module.a.weight.data.clone()


def hooked(module: Scaled) -> None:
    module.a.register_forward_hook(lambda _, __, out: out.flip(1))


def recast(module: Scaled) -> None:
    module.__class__ = type("Other", (Scaled,), {})


CHANGES: dict[str, Callable[[Scaled], Any]] = {
    "layers": narrower,
    "weights": other_weights,
    "memory": set_data,
    "attribute": lambda module: setattr(module, "skips", False),
    "deep": lambda module: module.settings["offsets"].__setitem__(0, 1.0),
    "helper": lambda module: setattr(module, "act", torch.tanh),
    "part": lambda module: module.b.__setattr__("padding_mode", "reflect"),
    "hook": hooked,
    "class": recast,
    "replaced": lambda module: setattr(module, "b", nn.Identity()),
    "parameter": lambda module: module.register_parameter("more", nn.Parameter(torch.zeros(1))),
    "buffer": lambda module: module.register_buffer("more", torch.zeros(1)),
    "tensor": lambda module: setattr(module, "more", torch.zeros(1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_looked_at_anew(change: str, searches: list[nn.Module]) -> None:
    module, x = Scaled().eval(), torch.zeros(1, 3, 8, 8)
    before = find_structure(module, x)
    CHANGES[change](module)
    after = find_structure(module, x)
    assert len(searches) == 2
    if change == "layers":
        assert (before.sizes, after.sizes) == ({"a:out": 8}, {"a:out": 6, "b:out": 8})
    if change == "attribute":
        assert after.sizes == {"a:out": 8, "b:out": 8}
        module.skips = True
        assert find_structure(module, x).sizes == before.sizes
        assert len(searches) == 3


def test_no_model_is_kept_for_that() -> None:
    module = randomized(ResNet())
    find_structure(module, image())
    gone = [weakref.ref(module), weakref.ref(module.blocks[0])]
    del module
    gc.collect()
    assert [one() for one in gone] == [None, None]
