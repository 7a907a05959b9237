"""Methods of a module's class, read as trees and compiled again with other sizes."""

from __future__ import annotations

import ast
import copy
import inspect
import linecache
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from torch import nn

RESHAPES = ("reshape", "view", "expand")
SPLITS = ("split", "split_with_sizes")

# Of a size: line and column of the end of its call (chained calls begin alike), which of the call's sizes it is, and
# whether the call takes its sizes from a tuple that is made elsewhere.
Place = tuple[int, int, int, bool]


@dataclass(frozen=True, eq=False)
class SizedCall:
    """A call that is told sizes: `x.view(a, b)`, `x.view((a, b))`, `x.view(*shape)`, `torch.split(x, self.sizes)`."""

    call: ast.Call
    name: str
    holder: list[ast.expr]  # what the sizes are in
    first: int  # where they begin in it
    spliced: bool  # one expression stands for all

    @property
    def sizes(self) -> list[ast.expr]:
        """The sizes that are written out, or the expression that stands for them."""
        return self.holder[self.first : self.first + 1] if self.spliced else self.holder[self.first :]

    def covers(self, line: int) -> bool:
        return self.call.lineno <= line <= (self.call.end_lineno or self.call.lineno)

    def place(self, number: int) -> Place:
        return *_end(self.call), number, self.spliced

    def put(self, number: int, attribute: str) -> None:
        """Let a size be read from an attribute; a tuple made elsewhere gets it in its place."""
        at = self.first if self.spliced else self.first + number
        old = self.holder[at]
        new = attribute
        if self.spliced:
            text = ast.unparse(old.value if isinstance(old, ast.Starred) else old)
            new = f"(*({text})[:{number}], {attribute}, *({text})[{number + 1} :])"
        parsed = ast.parse(new, mode="eval").body
        self.holder[at] = ast.copy_location(
            ast.Starred(parsed, ast.Load()) if isinstance(old, ast.Starred) else parsed, old
        )


@lru_cache(maxsize=4096)
def sized_calls(tree: ast.AST) -> tuple[SizedCall, ...]:
    """The calls of a method that are told sizes."""
    return tuple(_sized_calls(tree))


def _sized_calls(tree: ast.AST) -> Iterator[SizedCall]:
    for part in ast.walk(tree):
        if not (isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute)):
            continue
        first = int(isinstance(part.func.value, ast.Name) and part.func.value.id == "torch")
        name, given = part.func.attr, part.args[first:]
        if not given or name not in (*RESHAPES, *SPLITS):
            continue
        if isinstance(given[0], ast.Tuple | ast.List):
            yield SizedCall(part, name, given[0].elts, 0, False)
        elif name in SPLITS:
            yield SizedCall(part, name, part.args, first, isinstance(given[0], ast.Name | ast.Attribute))
        else:
            alone = len(given) == 1 and isinstance(given[0], ast.Name | ast.Attribute | ast.Starred)
            yield SizedCall(part, name, part.args, first, alone)


@lru_cache(maxsize=4096)
def method_at(cls: Any, file: str, line: int) -> Callable[..., Any] | None:
    """The method that a line is in, if it is plain code that can be compiled again."""
    methods = {name: getattr(cls, name) for base in _bases(cls) for name in vars(base)}
    above = [
        (method.__code__.co_firstlineno, name)
        for name, method in methods.items()
        if inspect.isfunction(method) and method.__code__.co_filename == file and not method.__code__.co_freevars
    ]
    for _, name in sorted(((first, name) for first, name in above if first <= line), reverse=True):
        definition = tree_of(methods[name])
        if (
            definition is not None
            and definition.name == name
            and definition.lineno <= line <= (definition.end_lineno or 0)
        ):
            return cast("Callable[..., Any]", methods[name])
    return None


@lru_cache(maxsize=4096)
def block_at(file: str, first: int) -> ast.Module:
    """The function that begins in a line as a tree with the file's own line numbers; columns are those of the dedented
    code. Empty where there is no such file, or the line begins no statement (a lambda's)."""
    lines = linecache.getlines(file)[first - 1 :]
    try:
        tree = ast.parse(textwrap.dedent("".join(inspect.getblock(lines))))
    except (SyntaxError, tokenize.TokenError):
        return ast.Module([], [])
    ast.increment_lineno(tree, first - 1)
    return tree


@lru_cache(maxsize=256)
def file_at(file: str) -> ast.Module:
    """A whole file as a tree; empty where there is none."""
    try:
        return ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ast.Module([], [])


def blocks_of(cls: type[nn.Module]) -> Iterator[ast.Module]:
    """The methods of a module's class and of those it is made of, where there is a file with them."""
    for base in _bases(cls):
        for method in vars(base).values():
            if inspect.isfunction(method):
                yield block_at(method.__code__.co_filename, method.__code__.co_firstlineno)


def tree_of(method: Callable[..., Any]) -> ast.FunctionDef | None:
    """A plain function as a tree (`block_at`)."""
    body = block_at(method.__code__.co_filename, method.__code__.co_firstlineno).body
    definition = body[0] if body else None
    if not isinstance(definition, ast.FunctionDef) or definition.decorator_list or not definition.args.args:
        return None
    return definition


def rewritten(cls: Any, places: frozenset[Place]) -> dict[str, Callable[..., Any]]:
    """The methods of a class that these sizes are in, compiled anew to read them from attributes."""
    files = {m.__code__.co_filename for base in _bases(cls) for m in vars(base).values() if inspect.isfunction(m)}
    found = (method_at(cls, file, line) for line, *_ in sorted(places) for file in sorted(files))
    return {method.__name__: _compiled(method, places) for method in found if method is not None}


def attribute_for(place: Place) -> str:
    """The name of the attribute that holds a size."""
    line, column, number, _ = place
    return f"_size_{line}_{column}_{number}"


def _bases(cls: type[nn.Module]) -> tuple[type, ...]:
    return cls.__mro__[: cls.__mro__.index(nn.Module)]


def _end(call: ast.Call) -> tuple[int, int]:
    return call.end_lineno or call.lineno, call.end_col_offset or 0


def _compiled(method: Callable[..., Any], places: frozenset[Place]) -> Callable[..., Any]:
    definition = copy.deepcopy(tree_of(method))
    assert definition is not None
    this = definition.args.args[0].arg
    for sized in list(_sized_calls(definition)):
        for place in sorted(places):
            if place[:2] == _end(sized.call):
                sized.put(place[2], f"{this}.{attribute_for(place)}")
    _strip(definition)
    tree = ast.fix_missing_locations(ast.Module([definition], []))
    made: dict[str, Any] = {}
    exec(compile(tree, method.__code__.co_filename, "exec"), method.__globals__, made)
    result = made[definition.name]
    result.__defaults__, result.__kwdefaults__ = method.__defaults__, method.__kwdefaults__
    return result


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
