"""What a model's own source says of sizes: which attribute stands in which place of the statement that made a value."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache

from torch import fx

from edgeprune.graph.rewriting import block_at, file_at
from edgeprune.graph.trace import node_frames

SIZING_CALLS = ("view", "reshape", "expand", "unflatten")


def names_each_part(node: fx.Node, count: int) -> bool:
    """Whether a split is told the size of each of its parts by an attribute of its own."""
    statement = statement_of(node)
    return statement is not None and len(set(statement.parts.values())) == len(statement.parts) == count


@dataclass(frozen=True)
class Statement:
    """What a statement says of sizes: `names` read from self, per number of dimensions who stands where, and who says
    how large which part of a split is."""

    names: tuple[str, ...]
    places: dict[int, dict[int, str]]
    parts: dict[int, str]


def statement_of(node: fx.Node) -> Statement | None:
    frames = node_frames(node)
    if not frames:
        return None
    return _read(*frames[-1])


@lru_cache(maxsize=4096)
def _read(file: str, line: int, function: int) -> Statement | None:
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
        if call.func.attr in SIZING_CALLS and len(sizes) > 1:
            places.setdefault(len(sizes), {}).update(named)
        elif call.func.attr == "split":
            divided.update(named)
    return Statement(names, places, divided)


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
