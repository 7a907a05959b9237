"""Sizes in the code that would not follow: `x.reshape(b, n, self.num_heads, c // self.num_heads)`, `x.view(b, 64, -1)`.

Where a dimension with channels has a size that is neither an attribute nor left to torch (-1), the module is given an
attribute with what the size has to be, and its class becomes a subclass whose method reads that. The same goes for the
parts of a split. The module keeps its weights, its other attributes and its code but for that number.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.graph.flow import Flow, arguments
from edgeprune.graph.labels import Indices, Label
from edgeprune.graph.propagate import propagate
from edgeprune.graph.record import record
from edgeprune.graph.rewriting import (
    RESHAPES,
    SPLITS,
    Place,
    SizedCall,
    attribute_for,
    method_at,
    rewritten,
    sized_calls,
    tree_of,
)
from edgeprune.graph.statements import attribute_named
from edgeprune.graph.trace import module_path, node_frames, operator_name, shape_of
from edgeprune.space.attributes import number_of
from edgeprune.space.groups import Grouping
from edgeprune.space.units import CodeSize

_BASE, _EDITS = "_edgeprune_base", "_edgeprune_edits"  # of a mended class: what it was made from, and how


@dataclass(frozen=True, eq=False)
class Size:
    """A size that would not follow."""

    module: str
    place: Place
    label: Indices


def find_sizes(flow: Flow, module: nn.Module) -> tuple[Size, ...]:
    """The sizes to be replaced, each once, in the order of the graph; what one size stands for is coupled.

    Those of frozen channels are replaced, too, unless they are spelt out: the code may work them out from others. What
    no layer makes (positions in an image) is the code's own business.
    """
    components = flow.atoms.components()
    made = np.zeros(components.count, dtype=bool)
    for slot in flow.slots.values():
        if slot.producer:
            made[components.owners_in(components.of[slot.atoms])[1]] = True

    def is_made(label: Label) -> bool:
        return label is not None and bool(made[components.owners_in(components.of[label])[1]].any())

    def can_go(label: Label) -> bool:
        return label is not None and any(c not in components.reason for c in np.unique(components.of[label]).tolist())

    found: dict[tuple[str, Place], Size] = {}
    several: set[tuple[str, Place]] = set()
    for node in flow.trace.graph.nodes:
        told = _told(flow, node) if node.op == "call_function" else []
        if all(label is None for label, _ in told):
            continue
        path = module_path(node)
        for place, label, spelt in _places(node, told, module.get_submodule(path)):
            if not is_made(label) or (spelt and not can_go(label)):
                continue
            known = found.setdefault((path, place), Size(path, place, label)).label
            if len(known) == len(label):
                flow.atoms.couple(known, label)
            else:
                flow.atoms.freeze_all((known, label), "one size in the code stands for several widths")
                several.add((path, place))
    return tuple(size for key, size in found.items() if key not in several)


def steady_sizes(sizes: Iterable[Size], module: nn.Module, example: Tensor) -> tuple[Size, ...]:
    """Those sizes that are the same for twice as many images as were traced: no multiples of the batch."""
    x = torch.cat([example, example])
    there = {
        (size.module, size.place): len(size.label) for size in find_sizes(propagate(record(module, x), module), module)
    }
    return tuple(size for size in sizes if there.get((size.module, size.place)) == len(size.label))


def code_sizes_for(sizes: Iterable[Size], grouping: Grouping) -> tuple[CodeSize, ...]:
    """What each size has to be."""
    return tuple(CodeSize(size.module, *size.place, grouping.width(size.label, len(size.label))) for size in sizes)


def apply_code_sizes(module: nn.Module, code_sizes: Iterable[CodeSize], kept: Mapping[str, int]) -> None:
    """Give the modules their mended classes and the sizes at these widths, in place."""
    chosen: dict[str, dict[Place, int]] = {}
    for one in code_sizes:
        chosen.setdefault(one.module, {})[one.line, one.column, one.number, one.spliced] = one.value.at(kept)
    for path, sizes in chosen.items():
        part = module.get_submodule(path)
        cls: Any = type(part)
        part.__class__ = _mended(getattr(cls, _BASE, cls), getattr(cls, _EDITS, frozenset()).union(sizes))
        for place, size in sizes.items():
            setattr(part, attribute_for(place), size)


def _told(flow: Flow, node: fx.Node) -> list[tuple[Label, int]]:
    """(label, size) of each size that a call of this operator is told."""
    name = operator_name(node)
    if name in (*RESHAPES, "_unsafe_view"):
        return list(zip(flow.labels(node), shape_of(node), strict=True))
    value = flow.values.get(node)
    if name in SPLITS and isinstance(value, list):
        dim = int(arguments(node)["dim"])
        parts = [(labels[dim], int(part.shape[dim])) for labels, part in zip(value, node.meta["val"], strict=True)]
        return parts if name == "split_with_sizes" else parts[:1]  # `split`: of all but perhaps the last part
    return []


def _places(
    node: fx.Node, told: Sequence[tuple[Label, int]], owner: nn.Module
) -> Iterator[tuple[Place, Indices, bool]]:
    """The sizes in the code that a node was told, of those with channels that do not follow by themselves, and whether
    they are spelt out as a number."""
    frames = node_frames(node)
    method = method_at(_unmended(type(owner)), *frames[-1][:2]) if frames else None
    tree = tree_of(method) if method is not None else None
    if tree is None:
        return
    kind = SPLITS if operator_name(node) in SPLITS else RESHAPES
    calls = [call for call in sized_calls(tree) if call.covers(frames[-1][1]) and call.name in kind]
    written = [call for call in calls if not call.spliced and len(call.sizes) >= len(told)]
    exact = [call for call in written if kind is SPLITS or len(call.sizes) == len(told)]
    for call in exact or [call for call in calls if _stands_for(call, len(told))]:
        for number, (label, size) in enumerate(told):
            expression = call.sizes[0 if call.spliced else number]
            follows = _is_left(expression, owner, number) if call.spliced else _follows(expression, owner, size)
            if label is not None and not follows:
                yield call.place(number), label, isinstance(expression, ast.Constant)


def _stands_for(call: SizedCall, count: int) -> bool:
    """Whether one expression is a tuple of so many sizes."""
    return call.spliced and (count > 1 or isinstance(call.sizes[0], ast.Starred))


def _is_left(sizes: ast.expr, owner: nn.Module, number: int) -> bool:
    """Whether a tuple that the module keeps leaves one of its sizes to torch."""
    kept = getattr(owner, attribute_named(sizes.value if isinstance(sizes, ast.Starred) else sizes) or "", None)
    return isinstance(kept, tuple | list) and number < len(kept) and kept[number] == -1


def _follows(size: ast.expr, owner: nn.Module, value: int) -> bool:
    """Whether a size is left to torch, or an attribute of the module holds it, which is set (perhaps times the batch,
    which was 1: `b * self.num_heads`)."""
    if isinstance(size, ast.UnaryOp) and isinstance(size.op, ast.USub):
        return True
    if isinstance(size, ast.BinOp) and isinstance(size.op, ast.Mult):
        return _follows(size.left, owner, value) or _follows(size.right, owner, value)
    name = attribute_named(size)
    return name is not None and number_of(owner, name) == value


def _unmended(cls: Any) -> Any:
    return getattr(cls, _BASE, cls)


@lru_cache(maxsize=1024)
def _mended(cls: type[nn.Module], edits: frozenset[Place]) -> type[nn.Module]:
    """A subclass whose methods take these sizes from attributes."""
    members: dict[str, Any] = {
        _BASE: cls,
        _EDITS: edits,
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
    }
    return type(cls.__name__, (cls,), {**members, **rewritten(cls, edits)})
