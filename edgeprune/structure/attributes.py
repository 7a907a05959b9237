"""Numbers that modules keep and their code reads: `x.reshape(b, n, self.num_heads, self.head_dim)`.

When heads go, `num_heads` has to follow. Which attribute stands for which dimension is read from the source line that
made the value: an argument `self.NAME` in the dimension's place, or, where the places cannot be told, the only
attribute named in that statement that holds the dimension's size. Whether it was right is seen in the trial that
follows (`recheck.py`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, fx, nn

from edgeprune.structure.graph import module_path, node_frames, operator_name, shape_of
from edgeprune.structure.groups import Grouping
from edgeprune.structure.labels import Labels
from edgeprune.structure.propagation import Flow, arguments
from edgeprune.structure.rewriting import block_at, blocks_of, file_at
from edgeprune.structure.units import Attribute, Indices

_SIZED = ("view", "reshape", "_unsafe_view", "expand", "unflatten", "split", "split_with_sizes", "chunk", "flatten")
_CALLS = ("view", "reshape", "expand", "unflatten")


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
        statement = _statement_of(node)
        if statement is not None:
            for name, label in _named_in(node, flow, statement, module.get_submodule(path)):
                yield path, name, label, node


def _named_in(node: fx.Node, flow: Flow, statement: _Statement, owner: nn.Module) -> Iterator[tuple[str, Indices]]:
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
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _CALLS:
            found |= {name: None for part in ast.walk(call) if (name := attribute_named(part)) is not None}
    return tuple(found)


def names_each_part(node: fx.Node, count: int) -> bool:
    """Whether a split is told the size of each of its parts by an attribute of its own."""
    statement = _statement_of(node)
    return statement is not None and len(set(statement.parts.values())) == len(statement.parts) == count


@dataclass(frozen=True)
class _Statement:
    """What a statement says of sizes: `names` read from self, per number of dimensions who stands where, and who says
    how large which part of a split is."""

    names: tuple[str, ...]
    places: dict[int, dict[int, str]]
    parts: dict[int, str]


def _statement_of(node: fx.Node) -> _Statement | None:
    frames = node_frames(node)
    if not frames:
        return None
    return _read(*frames[-1])


@lru_cache(maxsize=4096)
def _read(file: str, line: int, function: int) -> _Statement | None:
    # A generator's or a lambda's first line begins no block: then the statement is looked for in the whole file.
    simple = _statements_at(block_at(file, function), line) or _statements_at(file_at(file), line)
    if not simple:
        return None
    parts = [part for statement in simple for part in ast.walk(statement)]
    names = tuple(dict.fromkeys(name for part in parts if (name := attribute_named(part)) is not None))
    places: dict[int, dict[int, str]] = {}
    divided: dict[int, str] = {}
    for call in parts:
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args):
            continue
        sizes = sizes_of(call)
        named = {place: name for place, part in enumerate(sizes) if (name := attribute_named(part)) is not None}
        if call.func.attr in _CALLS and len(sizes) > 1:
            places.setdefault(len(sizes), {}).update(named)
        elif call.func.attr == "split":
            divided.update(named)
    return _Statement(names, places, divided)


def _statements_at(tree: ast.AST, line: int) -> list[ast.stmt]:
    """The statements that hold no others and cover a line."""
    return [
        part
        for part in ast.walk(tree)
        if isinstance(part, ast.stmt) and not hasattr(part, "body") and part.lineno <= line <= (part.end_lineno or 0)
    ]


def sizes_of(call: ast.Call) -> list[ast.expr]:
    """The sizes in a call, written one by one or as a tuple or list."""
    first = call.args[0] if call.args else None
    return first.elts if isinstance(first, ast.Tuple | ast.List) else call.args


def attribute_named(part: ast.AST) -> str | None:
    """NAME of `self.NAME`, whatever the module calls itself."""
    return part.attr if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) else None
