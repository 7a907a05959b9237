"""Does the traced code follow its widths? A model is pruned on trial and compared.

A trace cannot tell `x.view(b, 64, -1)` from `x.view(b, x.shape[1], -1)`; a trial cut can. Where the pruned model does
not compute what the masked one does, it is traced as well, which tells where: every value must have the shape that the
labels predict, and every number in the graph must be what it was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, fx, nn

from edgeprune.graph.flow import Flow
from edgeprune.graph.labels import Indices, Labels
from edgeprune.graph.record import follow_as
from edgeprune.graph.trace import (
    TRACE_ERRORS,
    describe,
    describe_error,
    node_frames,
    operator_name,
    user_frames,
)
from edgeprune.space.cut import remove_units
from edgeprune.space.groups import Grouping
from edgeprune.space.masks import mask_units
from edgeprune.space.trial import Forms, TrialImages, agree, answers
from edgeprune.space.units import Structure

# Sizes stand in these operators' arguments; what they amount to shows in the shape of the result.
_SIZED = (
    *("view", "reshape", "_unsafe_view", "expand", "unflatten", "slice", "narrow", "split", "split_with_sizes"),
    *(
        "chunk",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "zeros",
        "ones",
        "full",
        "empty",
        "arange",
        "layer_norm",
        "rms_norm",
    ),
)


@dataclass(frozen=True)
class Misfit:
    """Nodes or groups that the code does not let shrink (neither named: nobody can tell which)."""

    reason: str
    nodes: tuple[fx.Node, ...] = ()
    groups: tuple[int, ...] = ()  # positions in the structure
    batch: bool = False  # all is well with one image, and not with two


def find_misfits(
    trial: nn.Module, images: TrialImages, example: Tensor, flow: Flow, grouping: Grouping
) -> list[Misfit]:
    """Cut units on trial, and look at what the code makes of it.

    Where the pruned model computes what the masked one computes, all is well. Where it does not, it is traced, and
    compared with what the labels predict.

    Args:
        trial: the traced model, with weights that all count (`lively`).
        images: what it is tried with.
        example: what it was traced with.

    Returns:
        One misfit per node at which the code first leaves the prediction, or per group that the code cannot run
        without; empty when all is as predicted.
    """
    removed = trial_removal(grouping.structure)
    if not removed or images.hold(lambda x: _computes_as_masked(trial, grouping.structure, removed, x, images.forms)):
        return []
    x = images.x
    if len(x) > 1 and grouping.structure.code_sizes and _computes_as_masked(trial, grouping.structure, removed, x[:1]):
        return [Misfit("a size in the code depends on the batch", batch=True)]
    pruned = _cut(trial, grouping.structure, removed)
    try:
        trace = follow_as(flow.trace, pruned, example)
    except TRACE_ERRORS as error:
        return _failed(trial, example, flow, grouping, _with_values(pruned, example) or error)
    return _compare(flow, grouping.kept(removed), trace.graph) or _disagreeing(trial, x, grouping, removed)


def _computes_as_masked(
    trial: nn.Module, structure: Structure, removed: dict[str, Indices], x: Tensor, forms: Forms | None = None
) -> bool:
    units = {name: chosen.tolist() for name, chosen in removed.items()}
    pruned, masked = remove_units(trial, structure, units), mask_units(trial, structure, units)
    return agree(pruned, masked, x, forms)


def _disagreeing(trial: nn.Module, x: Tensor, grouping: Grouping, removed: dict[str, Indices]) -> list[Misfit]:
    """The groups without some of whose units the model computes something else; all of them where none does alone."""
    reason = "the pruned model computes something else than the masked one"
    numbers = {group.id: number for number, group in enumerate(grouping.structure.groups)}
    alone = [
        numbers[name]
        for name, units in removed.items()
        if not _computes_as_masked(trial, grouping.structure, {name: units}, x)
    ]
    return [Misfit(reason, groups=tuple(alone or (numbers[name] for name in removed)))]


def trial_removal(structure: Structure) -> dict[str, Indices]:
    """A different number of units of every group, so that no two widths agree by chance: of wide ones a quarter."""
    random = np.random.default_rng(0)
    removed = {}
    for number, group in enumerate(structure.groups):
        if most := group.size - 1:
            count = 1 + (most // 4 + number) % max(1, most // 2)
            removed[group.id] = np.sort(random.permutation(group.size)[:count]).astype(np.int64)
    return removed


def _cut(module: nn.Module, structure: Structure, removed: dict[str, Indices]) -> nn.Module:
    return remove_units(module, structure, {name: units.tolist() for name, units in removed.items()})


def _failed(trial: nn.Module, example: Tensor, flow: Flow, grouping: Grouping, error: BaseException) -> list[Misfit]:
    """The groups without some of whose units the code raises or leaves the prediction, tried one by one.

    Only those are tried that meet the line that raised; they all misfit where none does so alone.
    """
    suspects = _suspects(flow, grouping, error)
    removed = trial_removal(grouping.structure)
    found = []
    for number in suspects:
        name = grouping.structure.groups[number].id
        if name in removed:
            alone = _with_values(_cut(trial, grouping.structure, {name: removed[name]}), example)
            if alone is not None:
                found.append(Misfit(_complaint(alone), groups=(number,)))
    if not found:
        found = [misfit for number in suspects for misfit in _alone(trial, example, flow, grouping, number)]
    return found or [Misfit(_complaint(error), groups=tuple(suspects))]


def _with_values(module: nn.Module, example: Tensor) -> BaseException | None:
    """What a module raises: with values torch says more than without."""
    try:
        answers(module, example)
    except TRACE_ERRORS as error:
        return error
    return None


def _alone(trial: nn.Module, example: Tensor, flow: Flow, grouping: Grouping, number: int) -> list[Misfit]:
    """Where the code leaves the prediction when one group alone is cut."""
    name = grouping.structure.groups[number].id
    units = trial_removal(grouping.structure).get(name)
    if units is None:
        return []
    pruned = _cut(trial, grouping.structure, {name: units})
    try:
        trace = follow_as(flow.trace, pruned, example)
    except TRACE_ERRORS as error:
        return [Misfit(_complaint(_with_values(pruned, example) or error), groups=(number,))]
    misfits = _compare(flow, grouping.kept({name: units}), trace.graph)
    return [Misfit(misfits[0].reason, groups=(number,))] if misfits else []


def _suspects(flow: Flow, grouping: Grouping, error: BaseException) -> list[int]:
    """The groups in the operands of the line that raised, or of the nearest line around it that made nodes."""
    for file, line in user_frames(error):
        touched: set[int] = set()
        for node in flow.trace.graph.nodes:
            if any(frame[:2] == (file, line) for frame in node_frames(node)):
                for value in (node, *node.all_input_nodes):
                    touched |= grouping.groups_in(flow.values.get(value, ()))
        if touched:
            return sorted(touched)
    return list(range(len(grouping.structure.groups)))


def _complaint(error: BaseException) -> str:
    message = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"the code does not run at another width: {describe_error(error)} ({message})"


def _compare(flow: Flow, kept: Indices, graph: fx.Graph) -> list[Misfit]:
    found: list[Misfit] = []
    wrong: set[fx.Node] = set()
    before = [node for node in flow.trace.graph.nodes if node.op == "call_function"]
    after = [node for node in graph.nodes if node.op == "call_function"]
    for old, new in zip(before, after, strict=False):
        if str(old.target) != str(new.target):
            return [*found, Misfit(f"other operators run at another width: {describe(old)}", (old,))]
        fits = _shapes(new) == _predicted(flow, old, kept) and _numbers(old) == _numbers(new)
        if not fits:
            if not wrong.intersection(old.all_input_nodes):
                reason = f"a constant in the code does not follow the width: {describe(old)}"
                found.append(Misfit(reason, nodes=(old,)))
            wrong.add(old)
    if len(before) != len(after):
        found.append(Misfit("other operators run at another width"))
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
