"""Sizes in the code that would not follow: `x.reshape(b, n, self.num_heads, c // self.num_heads)`, `x.view(b, 64, -1)`.

Where a dimension with channels has a size that is neither an attribute nor left to torch (-1), the module is given an
attribute with what the size has to be, and its class becomes a subclass whose method reads that. The module keeps its
weights, its other attributes and its code but for that number.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch import fx, nn

from edgeprune.structure.attributes import attribute_named, number_of, sizes_of
from edgeprune.structure.graph import module_path, node_frames, operator_name, shape_of
from edgeprune.structure.groups import Grouping
from edgeprune.structure.labels import Label
from edgeprune.structure.propagation import Flow
from edgeprune.structure.units import Indices, Mend

_CALLS = ("reshape", "view", "expand")
_BASE, _EDITS = "_edgeprune_base", "_edgeprune_edits"  # of a mended class: what it was made from, and how

# Of a size: line and column of the end of its call (chained calls begin alike), dimension, and whether the call takes
# its sizes from a tuple that is made elsewhere.
Place = tuple[int, int, int, bool]


@dataclass(frozen=True, eq=False)
class Size:
    """A size that would not follow."""

    module: str
    place: Place
    label: Indices


def find_sizes(flow: Flow, module: nn.Module) -> tuple[Size, ...]:
    """The sizes to be replaced, each once, in the order of the graph; what one size stands for is coupled."""
    components = flow.atoms.components()

    def can_go(label: Label) -> bool:
        return label is not None and any(c not in components.reason for c in np.unique(components.of[label]).tolist())

    found: dict[tuple[str, Place], Size] = {}
    for node in flow.program.graph.nodes:
        if node.op == "call_function" and operator_name(node) in (*_CALLS, "_unsafe_view"):
            path = module_path(node)
            labels = [label if can_go(label) else None for label in flow.labels(node)]
            for place, label in _sizes_at(node, labels, module.get_submodule(path)):
                known = found.setdefault((path, place), Size(path, place, label)).label
                if len(known) == len(label):
                    flow.atoms.couple(known, label)
                else:
                    flow.atoms.freeze_all((known, label), "one size in the code stands for several widths")
    return tuple(found.values())


def mends_for(sizes: Iterable[Size], grouping: Grouping) -> tuple[Mend, ...]:
    """What each size has to be, of those that something can take away from."""
    mends = (Mend(size.module, *size.place, grouping.width(size.label, len(size.label))) for size in sizes)
    return tuple(mend for mend in mends if mend.value.groups)


def apply_mends(module: nn.Module, mends: Iterable[Mend], kept: Mapping[str, int]) -> None:
    """Give the modules their mended classes and the sizes at these widths, in place."""
    chosen: dict[str, dict[Place, int]] = {}
    for mend in mends:
        chosen.setdefault(mend.module, {})[mend.line, mend.column, mend.dim, mend.spliced] = mend.value.at(kept)
    for path, sizes in chosen.items():
        part = module.get_submodule(path)
        cls = type(part)
        part.__class__ = _mended(getattr(cls, _BASE, cls), getattr(cls, _EDITS, frozenset()).union(sizes))
        for place, size in sizes.items():
            setattr(part, _attribute(place), size)


def _sizes_at(node: fx.Node, labels: Sequence[Label], owner: nn.Module) -> Iterator[tuple[Place, Indices]]:
    frames = node_frames(node)
    method = _method_at(_unmended(type(owner)), *frames[-1][:2]) if frames else None
    if method is None:
        return
    line, shape = frames[-1][1], shape_of(node)
    calls = [call for call in _reshapes(method) if call.lineno <= line <= (call.end_lineno or call.lineno)]
    written = [call for call in calls if len(sizes_of(call)) == len(shape) and not _is_spliced(call, len(shape))]
    for call in written or [call for call in calls if _is_spliced(call, len(shape))]:
        sizes: Sequence[ast.expr | None] = sizes_of(call) if written else [None] * len(shape)
        for dim, (size, label) in enumerate(zip(sizes, labels, strict=True)):
            if label is not None and not _follows(size, owner, shape[dim]):
                yield (call.end_lineno or call.lineno, call.end_col_offset or 0, dim, not written), label


def _is_spliced(call: ast.Call, dims: int) -> bool:
    """Whether the sizes are in a tuple that is made elsewhere: `x.view(self.shape)`, `x.view(*shape)`."""
    sizes = sizes_of(call)
    if len(sizes) != 1:
        return False
    plain = isinstance(sizes[0], ast.Name | ast.Attribute) and dims > 1
    return plain or isinstance(sizes[0], ast.Starred)


def _follows(size: ast.expr | None, owner: nn.Module, value: int) -> bool:
    """Whether a size is left to torch, or an attribute of the module holds it, which is set."""
    if isinstance(size, ast.UnaryOp) and isinstance(size.op, ast.USub):
        return True
    name = attribute_named(size) if size is not None else None
    return name is not None and number_of(owner, name) == value


def _unmended(cls: type[nn.Module]) -> type[nn.Module]:
    return getattr(cls, _BASE, cls)


def _method_at(cls: type[nn.Module], file: str, line: int) -> Callable[..., Any] | None:
    """The method that a line is in, if it is plain code that can be compiled again."""
    for name in dict.fromkeys(name for base in cls.__mro__[: cls.__mro__.index(nn.Module)] for name in vars(base)):
        method = getattr(cls, name)
        if not inspect.isfunction(method) or method.__code__.co_filename != file or method.__code__.co_freevars:
            continue
        tree = _tree_of(method)
        if tree is not None and method.__name__ == name and tree.body[0].lineno <= line <= _last_line(tree):
            return method
    return None


def _last_line(tree: ast.Module) -> int:
    return tree.body[0].end_lineno or tree.body[0].lineno


@lru_cache(maxsize=4096)
def _tree_of(method: Callable[..., Any]) -> ast.Module | None:
    """The function as a tree with the file's own line numbers; columns are those of the dedented code."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        return None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef) or definition.decorator_list or not definition.args.args:
        return None
    return ast.increment_lineno(tree, method.__code__.co_firstlineno - 1)


def _reshapes(method: Callable[..., Any]) -> Iterator[ast.Call]:
    tree = _tree_of(method)
    assert tree is not None
    for part in ast.walk(tree):
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in _CALLS:
            yield part


@lru_cache(maxsize=1024)
def _mended(cls: type[nn.Module], edits: frozenset[Place]) -> type[nn.Module]:
    """A subclass whose methods take these sizes from attributes."""
    members: dict[str, Any] = {
        _BASE: cls,
        _EDITS: edits,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
    }
    methods = {_method_at(cls, file, line) for line, *_ in edits for file in _files_of(cls)} - {None}
    for method in methods:
        assert method is not None
        members[method.__name__] = _rewritten(method, edits)
    return type(cls.__name__, (cls,), members)


def _files_of(cls: type[nn.Module]) -> set[str]:
    bases = cls.__mro__[: cls.__mro__.index(nn.Module)]
    return {m.__code__.co_filename for base in bases for m in vars(base).values() if inspect.isfunction(m)}


def _rewritten(method: Callable[..., Any], edits: frozenset[Place]) -> Callable[..., Any]:
    tree = copy.deepcopy(_tree_of(method))
    assert tree is not None
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    this = definition.args.args[0].arg
    for part in ast.walk(tree):
        if isinstance(part, ast.Call):
            for edit in sorted(edits):
                if (part.end_lineno or part.lineno, part.end_col_offset or 0) == edit[:2]:
                    _put(part, edit, f"{this}.{_attribute(edit)}")
    _strip(definition)
    ast.fix_missing_locations(tree)
    made: dict[str, Any] = {}
    exec(compile(tree, method.__code__.co_filename, "exec"), method.__globals__, made)
    result = made[definition.name]
    result.__defaults__, result.__kwdefaults__ = method.__defaults__, method.__kwdefaults__  # type: ignore[attr-defined]
    return result  # type: ignore[no-any-return]


def _put(call: ast.Call, place: Place, attribute: str) -> None:
    """Let a call take the size of a dimension from an attribute."""
    _, _, dim, spliced = place
    if not spliced:
        sizes = sizes_of(call)
        sizes[dim] = ast.copy_location(_expression(attribute), sizes[dim])
        return
    last = call.args[-1]
    text = ast.unparse(last.value if isinstance(last, ast.Starred) else last)
    size = _expression(f"(*({text})[:{dim}], {attribute}, *({text})[{dim + 1} :])")
    call.args[-1] = ast.copy_location(ast.Starred(size, ast.Load()) if isinstance(last, ast.Starred) else size, last)


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _strip(definition: ast.FunctionDef) -> None:
    """Without annotations and the values of defaults: they are the class's business, and are put back."""
    arguments = definition.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for argument in every:
        if argument is not None:
            argument.annotation = None
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    arguments.kw_defaults = [default and ast.Constant(None) for default in arguments.kw_defaults]
    definition.returns = None


def _attribute(place: Place) -> str:
    line, column, dim, _ = place
    return f"_size_{line}_{column}_{dim}"
