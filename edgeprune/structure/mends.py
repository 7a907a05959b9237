"""Sizes that the code works out and that would not follow: `x.reshape(b, n, self.num_heads, c // self.num_heads)`.

One size of a reshape can always be left to torch (-1): the result is the same. Where a dimension with channels has a
size that is neither an attribute nor -1, that size is replaced, and the dimension follows whatever is kept. The module
keeps its weights, its attributes and its code but for that number; its class becomes a subclass with the new `forward`.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch import fx, nn

from edgeprune.structure.attributes import attribute_named, number_of, sizes_of
from edgeprune.structure.graph import module_path, node_frames, operator_name, shape_of
from edgeprune.structure.labels import Label
from edgeprune.structure.propagation import Flow
from edgeprune.structure.units import Mend

_CALLS = ("reshape", "view")
_BASE = "_edgeprune_mends"  # of a mended class: the class it was made from


def find_mends(flow: Flow, module: nn.Module) -> tuple[Mend, ...]:
    """The sizes to be replaced, each once, in the order of the graph."""
    components = flow.atoms.components()

    def can_go(label: Label) -> bool:
        return label is not None and any(c not in components.reason for c in np.unique(components.of[label]).tolist())

    found: dict[Mend, None] = {}
    for node in flow.program.graph.nodes:
        if node.op == "call_function" and operator_name(node) in (*_CALLS, "_unsafe_view"):
            path = module_path(node)
            labels = [label if can_go(label) else None for label in flow.labels(node)]
            found |= dict.fromkeys(_mends_of(node, labels, path, module.get_submodule(path)))
    return tuple(found)


def apply_mends(module: nn.Module, mends: Iterable[Mend]) -> None:
    """Give the modules their mended classes, in place."""
    edits: dict[str, set[tuple[int, int, int]]] = {}
    for mend in mends:
        edits.setdefault(mend.module, set()).add((mend.line, mend.column, mend.place))
    for path, places in edits.items():
        part = module.get_submodule(path)
        original: Any = _original(type(part))
        part.__class__ = _mended(original, frozenset(places))


def mended(module: nn.Module, mends: Iterable[Mend]) -> nn.Module:
    """A mended copy, or the module itself where there is nothing to mend."""
    chosen = tuple(mends)
    if not chosen:
        return module
    result = copy.deepcopy(module)
    apply_mends(result, chosen)
    return result


def _mends_of(node: fx.Node, labels: Sequence[Label], path: str, owner: nn.Module) -> Iterator[Mend]:
    frames = node_frames(node)
    forward = _forward_of(_original(type(owner)))
    if not frames or forward is None or forward.__code__.co_filename != frames[-1][0]:
        return
    line, shape = frames[-1][1], shape_of(node)
    for call in _reshapes(forward):
        sizes = sizes_of(call)
        if not call.lineno <= line <= (call.end_lineno or call.lineno) or len(sizes) != len(shape):
            continue
        if any(_is_left(size) for size in sizes):
            continue
        worked_out = [
            dim
            for dim, (size, label) in enumerate(zip(sizes, labels, strict=True))
            if label is not None and not isinstance(size, ast.Constant) and not _is_kept(size, owner, shape[dim])
        ]
        if len(worked_out) == 1:
            yield Mend(path, *_end_of(call), worked_out[0])


def _end_of(call: ast.Call) -> tuple[int, int]:
    """Where a call ends: chained calls begin at the same place."""
    return call.end_lineno or call.lineno, call.end_col_offset or 0


def _is_left(size: ast.expr) -> bool:
    return isinstance(size, ast.UnaryOp) and isinstance(size.op, ast.USub)


def _is_kept(size: ast.expr, owner: nn.Module, value: int) -> bool:
    """Whether an attribute of the module holds the size: then that one follows."""
    name = attribute_named(size)
    return name is not None and number_of(owner, name) == value


def _original(cls: type[nn.Module]) -> type[nn.Module]:
    return getattr(cls, _BASE, cls)


def _forward_of(cls: type[nn.Module]) -> Callable[..., Any] | None:
    """The class's forward, if it is plain code that can be compiled again."""
    forward = cls.forward
    if not inspect.isfunction(forward) or forward.__code__.co_freevars or _tree_of(forward) is None:
        return None
    return forward


@lru_cache(maxsize=1024)
def _tree_of(forward: Callable[..., Any]) -> ast.Module | None:
    """The function as a tree with the file's own line numbers; columns are those of the dedented code."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, TypeError, SyntaxError):
        return None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef) or definition.decorator_list:
        return None
    return ast.increment_lineno(tree, forward.__code__.co_firstlineno - 1)


def _reshapes(forward: Callable[..., Any]) -> Iterator[ast.Call]:
    tree = _tree_of(forward)
    assert tree is not None
    for part in ast.walk(tree):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in _CALLS:
            yield part


@lru_cache(maxsize=1024)
def _mended(cls: type[nn.Module], edits: frozenset[tuple[int, int, int]]) -> type[nn.Module]:
    """A subclass whose forward leaves these sizes to torch. edits: (line, column, place among the sizes)."""
    forward = cls.forward
    tree = copy.deepcopy(_tree_of(forward))
    assert tree is not None
    for part in ast.walk(tree):
        if isinstance(part, ast.Call):
            for line, column, place in edits:
                if _end_of(part) == (line, column):
                    sizes = sizes_of(part)
                    sizes[place] = ast.copy_location(ast.UnaryOp(ast.USub(), ast.Constant(1)), sizes[place])
    ast.fix_missing_locations(tree)
    made: dict[str, Any] = {}
    exec(compile(tree, forward.__code__.co_filename, "exec"), forward.__globals__, made)
    members = {"forward": made[forward.__name__], _BASE: cls, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), members)
