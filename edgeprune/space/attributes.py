"""Numbers that modules keep and their code reads: `x.reshape(b, n, self.num_heads, self.head_dim)`.

When heads go, `num_heads` has to follow. Which attribute stands for which dimension is read from the source line that
made the value: an argument `self.NAME` in the dimension's place, or, where the places cannot be told, the only
attribute named in that statement that holds the dimension's size. Whether it was right is seen in the trial that
follows (`misfits.py`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from torch import Tensor, fx, nn

from edgeprune.graph.flow import Flow, arguments
from edgeprune.graph.labels import Indices, Labels
from edgeprune.graph.rewriting import blocks_of
from edgeprune.graph.statements import SIZING_CALLS, Statement, attribute_named, statement_of
from edgeprune.graph.trace import module_path, operator_name, shape_of
from edgeprune.space.groups import Grouping
from edgeprune.space.units import Attribute

_SIZED = ("view", "reshape", "_unsafe_view", "expand", "unflatten", "split", "split_with_sizes", "chunk", "flatten")


def couple_attributes(flow: Flow, module: nn.Module) -> list[Indices]:
    """Dimensions that one attribute stands for have one size: they lose the same indices. Answers their labels."""
    first: dict[tuple[str, str], tuple[Indices, fx.Node]] = {}
    for path, name, label, node in _named_sizes(flow, module):
        known = first.setdefault((path, name), (label, node))[0]
        if len(known) == len(label):
            flow.atoms.couple(known, label)
    return [label for label, _ in first.values()]


def find_attributes(flow: Flow, module: nn.Module, grouping: Grouping) -> tuple[Attribute, ...]:
    """The attributes whose value follows from what is kept, each once, in the order of the graph."""
    found: dict[tuple[str, str], Attribute] = {}
    for path, name, label, _ in _named_sizes(flow, module):
        width = grouping.width(label, len(label))
        if width.groups:
            found.setdefault((path, name), Attribute(path, name, width))
    return tuple(found.values())


def _named_sizes(flow: Flow, module: nn.Module) -> Iterator[tuple[str, str, Indices, fx.Node]]:
    """(module, attribute, label, node) of every dimension with channels whose size the code takes from an attribute."""
    for node in flow.trace.graph.nodes:
        if node.op != "call_function" or operator_name(node) not in _SIZED:
            continue
        path = module_path(node)
        statement = statement_of(node)
        if statement is not None:
            for name, label in _named_in(node, flow, statement, module.get_submodule(path)):
                yield path, name, label, node


def _named_in(node: fx.Node, flow: Flow, statement: Statement, owner: nn.Module) -> Iterator[tuple[str, Indices]]:
    numbers = {name: value for name in statement.names if (value := number_of(owner, name)) is not None}
    cls: Any = type(owner)
    elsewhere = {name: value for name in _sizes_in(cls) if (value := number_of(owner, name)) is not None}
    for part, (shape, labels) in enumerate(_results(node, flow)):
        placed = statement.places.get(len(shape), {})
        if operator_name(node) == "split_with_sizes" and part in statement.parts:
            placed = {int(arguments(node)["dim"]) % len(shape): statement.parts[part]}
        for dim, (size, label) in enumerate(zip(shape, labels, strict=True)):
            if label is None:
                continue
            name = placed.get(dim)
            if not placed:
                fitting = [n for n, value in numbers.items() if value == size]
                fitting = fitting or [n for n, value in elsewhere.items() if value == size]
                name = fitting[0] if len(fitting) == 1 else None
            if name is not None and number_of(owner, name) == size:
                yield name, label


def _results(node: fx.Node, flow: Flow) -> Iterator[tuple[tuple[int, ...], Labels]]:
    value = flow.values[node]
    if isinstance(value, list):
        shapes = [tuple(int(s) for s in part.shape) for part in node.meta["val"]]
        yield from zip(shapes, value, strict=True)
    elif isinstance(node.meta.get("val"), Tensor):
        yield shape_of(node), value


def number_of(owner: nn.Module, name: str) -> int | None:
    value = getattr(owner, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@lru_cache(maxsize=1024)
def _sizes_in(cls: type[nn.Module]) -> tuple[str, ...]:
    """Attributes that stand for a size anywhere in a class: what a helper is told as an argument may be one."""
    found: dict[str, None] = {}
    for call in (part for block in blocks_of(cls) for part in ast.walk(block)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in SIZING_CALLS:
            found |= {name: None for part in ast.walk(call) if (name := attribute_named(part)) is not None}
    return tuple(found)
