"""Does the traced code follow its widths? A model is pruned on trial, traced again and compared.

A trace cannot tell `x.view(b, 64, -1)` from `x.view(b, x.shape[1], -1)`. After a trial cut it can: every value
must have the shape that the labels predict, and every number in the graph must be what it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.structure.cut import remove_units
from edgeprune.structure.graph import TRACE_ERRORS, describe, evaluating, node_frames, operator_name, user_frames
from edgeprune.structure.groups import Grouping
from edgeprune.structure.labels import Labels
from edgeprune.structure.propagation import Flow
from edgeprune.structure.units import Indices

# Sizes stand in these operators' arguments; what they amount to shows in the shape of the result.
_SIZED = (
    *("view", "reshape", "_unsafe_view", "expand", "unflatten", "slice", "narrow", "split", "split_with_sizes"),
    *("chunk", "conv2d", "zeros", "ones", "full", "empty", "arange"),
)


@dataclass(frozen=True)
class Misfit:
    """Nodes whose values do not follow the widths (none named: nobody can tell which)."""

    nodes: tuple[fx.Node, ...]
    reason: str


def find_misfits(module: nn.Module, example: Tensor, flow: Flow, grouping: Grouping) -> list[Misfit]:
    """Cut units on trial, trace, and compare with what the labels predict.

    Returns:
        One misfit per node at which the code first leaves the prediction; empty when all is as predicted.
    """
    removed = trial_removal(grouping)
    if not removed:
        return []
    pruned = remove_units(module, grouping.structure, {name: units.tolist() for name, units in removed.items()})
    try:
        with evaluating(pruned):
            program = torch.export.export(pruned, (example,), strict=False)
    except TRACE_ERRORS as error:
        return [_failed(flow, error)]
    return _compare(flow, grouping.kept(removed), program.graph)


def trial_removal(grouping: Grouping) -> dict[str, Indices]:
    """A different number of units of every group, so that no two widths agree by chance."""
    random = np.random.default_rng(0)
    removed = {}
    for number, group in enumerate(grouping.structure.groups):
        steps = (group.size - 1) // group.multiple
        if steps:
            count = group.multiple * (1 + number % max(1, steps // 2))
            removed[group.id] = np.sort(random.permutation(group.size)[:count]).astype(np.int64)
    return removed


def _failed(flow: Flow, error: BaseException) -> Misfit:
    """The nodes made by the line that raised; calls and joined lines are told by the innermost frame that fits."""
    message = (str(error).strip().splitlines() or [type(error).__name__])[0]
    for file, line in user_frames(error):
        nodes = tuple(
            node
            for node in flow.program.graph.nodes
            if node.op == "call_function" and any(frame[:2] == (file, line) for frame in node_frames(node))
        )
        if nodes:
            where = describe(nodes[0])
            return Misfit(nodes, f"the code does not follow another width: {where} ({message})")
    return Misfit((), f"the code does not run at another width ({message})")


def _compare(flow: Flow, kept: Indices, graph: fx.Graph) -> list[Misfit]:
    found: list[Misfit] = []
    wrong: set[fx.Node] = set()
    before = [node for node in flow.program.graph.nodes if node.op == "call_function"]
    after = [node for node in graph.nodes if node.op == "call_function"]
    for old, new in zip(before, after, strict=False):
        if str(old.target) != str(new.target):
            return [*found, Misfit((old,), f"other operators run at another width: {describe(old)}")]
        fits = _shapes(new) == _predicted(flow, old, kept) and _numbers(old) == _numbers(new)
        if not fits:
            if not wrong.intersection(old.all_input_nodes):
                found.append(Misfit((old,), f"a constant in the code does not follow the width: {describe(old)}"))
            wrong.add(old)
    if len(before) != len(after):
        found.append(Misfit((), "other operators run at another width"))
    return found


def _predicted(flow: Flow, node: fx.Node, kept: Indices) -> list[tuple[int, ...]]:
    value = flow.values[node]
    parts = value if isinstance(value, list) else [value]
    return [_predicted_shape(shape, labels, kept) for shape, labels in zip(_shapes(node), parts, strict=True)]


def _predicted_shape(shape: tuple[int, ...], labels: Labels, kept: Indices) -> tuple[int, ...]:
    if not labels:
        return shape
    return tuple(size if label is None else int(kept[label].sum()) for size, label in zip(shape, labels, strict=True))


def _shapes(node: fx.Node) -> list[tuple[int, ...]]:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return [tuple(int(size) for size in v.shape) if isinstance(v, Tensor) else () for v in values]


def _numbers(node: fx.Node) -> list[object]:
    """The literal arguments of a node."""
    if operator_name(node) in _SIZED:
        return []
    flat: list[object] = []

    def collect(value: object) -> None:
        if isinstance(value, list | tuple):
            for item in value:
                collect(item)
        elif isinstance(value, dict):
            collect(list(value.items()))
        elif not isinstance(value, fx.Node):
            flat.append(value)

    collect(node.args)
    collect(node.kwargs)
    return flat
