"""Models of several inputs, whatever their `forward` takes them in: one tensor inside, each by itself in a program."""

from __future__ import annotations

import copy
import math
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from facts import refused
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.cli.console import read_input_size
from edgeprune.errors import ModelError, RecipeError, UsageError
from edgeprune.graph.trace import trace
from edgeprune.models.inputs import apart, by_name, given_to, in_order, inputs_of, packed
from edgeprune.models.load import build, load
from edgeprune.models.spec import InputSpec, Model
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import settings_hash
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.masks import mask_units

NETS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import NamedTuple
import torch
from torch import Tensor, nn


class Core(nn.Module):
    def __init__(self):
        super().__init__()
        self.see, self.match = nn.Conv2d(3, 6, 3), nn.Conv2d(12, 8, 3)
        self.place, self.head = nn.Linear(5, 4), nn.Linear(12, 3)

    def answer(self, left, right, place):
        x = self.match(torch.relu(torch.cat([self.see(left), self.see(2 * right)], 1))).mean((2, 3))
        return self.head(torch.relu(torch.cat([x, self.place(place)], 1)))


@dataclass
class Views:
    left: Tensor
    right: Tensor
    place: Tensor


class Named(NamedTuple):
    left: Tensor
    right: Tensor
    place: Tensor


class names(Core):
    def forward(self, place, right, left):
        return self.answer(left, right, place)

class defaults(Core):
    def forward(self, left, right, place, *, debug=False, **more):
        return self.answer(left, right, place)

class a_dict(Core):
    def forward(self, batch):
        return self.answer(**batch)

class a_dataclass(Core):
    def forward(self, views: Views):
        return self.answer(views.left, views.right, views.place)

class a_named_tuple(Core):
    def forward(self, views: Named):
        return self.answer(*views)

class a_tuple(Core):
    def forward(self, views: tuple[Tensor, ...]):
        return self.answer(*views)

class in_order(Core):
    def forward(self, *views):
        return self.answer(*views)

class lazy(Core):
    def __init__(self):
        super().__init__()
        self.place = nn.LazyLinear(4)

    def forward(self, batch):
        return self.answer(**batch)

class other_names(Core):
    def forward(self, one, two, three):
        return self.answer(one, two, three)

@dataclass
class Two:
    left: Tensor
    right: Tensor

class other_fields(Core):
    def forward(self, views: Two):
        return views

class changes(Core):
    def forward(self, batch):
        batch["left"].mul_(2)
        return self.answer(**batch)

def wrapped():
    return nn.DataParallel(names())

class reshapes(nn.Module):
    def __init__(self):
        super().__init__()
        self.see, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6 * 6 * 6 + 5, 3)

    def forward(self, left, place):
        x = torch.relu(self.see(left)).reshape(-1, 216)
        return self.head(torch.cat([x, place], 1))

class no_code(Core):
    def forward(self, batch: "a dict of tensors"):
        return self.answer(**batch)

class Registered(Core):
    def __init_subclass__(cls, name):
        super().__init_subclass__()

class registered(Registered, name="one"):
    def forward(self, batch):
        return self.answer(**batch)

def a_graph():
    return torch.fx.symbolic_trace(names())

class features(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 2))

    def forward(self, x):
        return self.net(x)
"""
SHAPES = {"left": (3, 8, 8), "right": (3, 8, 8), "place": (5,)}
WAYS = ["names", "defaults", "a_dict", "a_dataclass", "a_named_tuple", "a_tuple", "in_order", "wrapped", "no_code"]


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("nets") / "nets_of_several_inputs.py"
    file.write_text(NETS)
    return str(file)


def answer(model: Model, batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = model.module(batch)
    return given


@pytest.mark.parametrize("way", WAYS)
def test_it_is_one_tensor_inside_and_each_by_itself_in_a_program(nets: str, way: str) -> None:
    model = load(f"{nets}:{way}", inputs=SHAPES)
    taken = inputs_of(model.module)
    assert {one.name: one.shape for one in taken} == SHAPES
    assert model.spec.inputs == taken
    batch = model.example_input(4, seed=1)
    assert batch.shape == (4, 1, 1, 2 * 3 * 8 * 8 + 5)
    parts = given_to(model.module, batch)
    named = {one.name: part for one, part in zip(taken, parts, strict=True)}
    expected = model.module.answer(**named)  # as the author's own code has it
    assert torch.equal(answer(model, batch), expected)
    assert torch.equal(model.module(*parts), expected)
    assert torch.equal(copy.deepcopy(model.module)(batch), expected)
    program = trace(model.module, model.example_input(1, seed=1))
    assert [tuple(one.shape[1:]) for one in program.example_inputs[0]] == [one.shape for one in taken]
    assert torch.allclose(program.module()(*(part[:1] for part in parts)), expected[:1])


@pytest.mark.parametrize("way", ["names", "a_dict"])
def test_it_is_pruned_as_any_other(nets: str, way: str) -> None:
    model = load(f"{nets}:{way}", inputs=SHAPES)
    structure = find_structure(model.module, model.example_input())
    assert dict(structure.sizes) == {"see:out": 6, "match:out": 8, "place:out": 4}
    narrow = remove_units(model.module, structure, {"see:out": [0, 3], "place:out": [1]})
    assert answer(model.with_module(narrow), model.example_input(2)).shape == (2, 3)


def test_it_is_built_again_from_its_spec(nets: str) -> None:
    model = load(f"{nets}:lazy", inputs=SHAPES)
    again = build(type(model.spec).model_validate_json(model.spec.model_dump_json()))
    assert torch.equal(again(model.example_input(3)), model.module(model.example_input(3)))


def test_the_author_calls_it_as_ever(nets: str) -> None:
    """In the order of its own forward, whatever the recipe's is, by name, and through its own hooks."""
    model = load(f"{nets}:names", inputs=SHAPES)
    parts = {name: torch.randn(2, *shape) for name, shape in SHAPES.items()}
    expected = model.module.answer(**parts)
    assert [one.name for one in inputs_of(model.module)] == ["place", "right", "left"]
    assert torch.equal(model.module(parts["place"], parts["right"], parts["left"]), expected)
    assert torch.equal(model.module(**parts), expected)
    assert torch.equal(load(f"{nets}:a_dict", inputs=SHAPES).module(parts), expected)
    seen: list[tuple[int, ...]] = []
    model.module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["place"].shape)), with_kwargs=True
    )
    model.module(model.example_input(2))
    model.module(*given_to(model.module, model.example_input(2)))
    assert seen == [(2, 5), (2, 5)]


def test_sizes_in_its_code_follow_a_cut(nets: str) -> None:
    model = load(f"{nets}:reshapes", inputs={"left": (3, 8, 8), "place": (5,)})
    structure = find_structure(model.module, model.example_input())
    assert dict(structure.sizes) == {"see:out": 6}
    narrow = remove_units(model.module, structure, {"see:out": [0, 3, 4]})
    assert answer(model.with_module(narrow), model.example_input(2)).shape == (2, 3)
    masked = mask_units(model.module, structure, {"see:out": [0, 3, 4]})
    assert torch.allclose(narrow(model.example_input(2)), masked(model.example_input(2)), atol=1e-5)
    assert len(trace(narrow, model.example_input()).example_inputs[0]) == 2


def test_one_input_that_is_no_image(nets: str) -> None:
    model = load(f"{nets}:features", inputs={"x": (7,)})
    assert answer(model, model.example_input(5)).shape == (5, 2)
    (given,) = trace(model.module, model.example_input()).example_inputs[0]
    assert given.shape == (1, 7)


@pytest.mark.parametrize(
    ("way", "inputs", "facts"),
    [
        ("other_names", SHAPES, ("one, two, three", "left, right, place")),
        ("other_fields", SHAPES, ("Two", "left, right")),
        ("names", {"left": (3, 8, 8)}, ("place, right, left",)),
        ("names", {**SHAPES, "more": (1,)}, ("more",)),
        ("names", {"left": (3, 8, 9), "right": (3, 8, 8), "place": (5,)}, ()),
        ("changes", SHAPES, ("in place",)),
        ("registered", SHAPES, ("name",)),
        ("a_graph", SHAPES, ("nn.Module",)),
        ("names", {"place": 5}, ("place", 5)),
        ("names", {"place": (5.5,)}, ("place", 5.5)),
        ("names", {"place": "5"}, ("place",)),
        ("names", {"place": (True,)}, ("place",)),
        ("names", {}, ()),
        ("names", {"left": ()}, ("left",)),
        ("names", {"left": (0,)}, ()),
        ("names", {"not a name": (1,)}, ("not a name",)),
        ("names", {"left": (1 << 29,)}, ()),
    ],
)
def test_what_forward_does_not_take_is_refused(
    nets: str, way: str, inputs: dict[str, tuple[int, ...]], facts: tuple[str, ...]
) -> None:
    with refused(ModelError, *facts):
        load(f"{nets}:{way}", inputs=inputs)


def test_inputs_are_instead_of_an_image(nets: str) -> None:
    with refused(ModelError, "input_size"):
        load(f"{nets}:names", inputs=SHAPES, input_size=(3, 8, 8))
    with refused(ModelError, "factory"):
        load("resnet18", inputs=SHAPES)
    for beside in ({"input_size": [3, 8, 8]}, {"mean": [0.5]}):
        with refused(RecipeError, *beside):
            recipe_of(**beside)
    with refused(RecipeError, "place"):
        recipe_of(inputs={"place": []})


def test_the_order_of_inputs_is_part_of_a_run() -> None:
    hashes = {
        settings_hash(recipe_of(inputs=inputs), ("model",)) for inputs in (SHAPES, dict(reversed(SHAPES.items())))
    }
    assert len(hashes) == 2


def test_the_command_line_names_them() -> None:
    assert read_input_size("left=3,8,8 place=5") == {"input_size": None, "inputs": {"left": (3, 8, 8), "place": (5,)}}
    assert read_input_size("3,8,8") == {"input_size": (3, 8, 8), "inputs": None}
    assert read_input_size(None) == {"input_size": None, "inputs": None}
    for text in ("left=3,8,8 left=5", "left=", "left=3 5", "=3", "left=0", "left=a", "left=3=3"):
        with refused(UsageError, "--input-size"):
            read_input_size(text)


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=5), st.integers(1, 3))
def test_what_is_packed_comes_apart(shapes: list[list[int]], count: int) -> None:
    inputs = [InputSpec(name=f"x{n}", shape=tuple(shape)) for n, shape in enumerate(shapes)]
    parts = [torch.randn(count, *shape, dtype=torch.float64) for shape in shapes]
    whole = packed(parts)
    assert whole.shape == (count, 1, 1, sum(math.prod(shape) for shape in shapes))
    assert all(torch.equal(one, other) for one, other in zip(apart(whole, inputs), parts, strict=True))
    named = {one.name: part for one, part in zip(inputs, parts, strict=True)}
    fields = namedtuple("fields", reversed(named))(**named)
    for held in (named, tuple(parts), dict(reversed(named.items())), fields):
        assert all(one is other for one, other in zip(by_name(held, inputs), parts, strict=True))


def recipe_of(**model: object) -> Recipe:
    return parse_recipe({"model": {"factory": "a.py:b", "inputs": SHAPES, **model}, "data": {"source": "c.py:d"}})


def test_a_file_of_a_factory_is_needed(tmp_path: Path) -> None:
    with refused(ModelError):
        load(f"{tmp_path / 'none.py'}:net", inputs=SHAPES)


def test_numbered_names_are_in_the_models_order() -> None:
    names = [f"args_{number}" for number in range(12)]
    assert in_order(sorted(names)) == names
