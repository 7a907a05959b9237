"""Rules for operators that move, join, cut or reshape dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import fx

from edgeprune.structure.graph import describe, shape_of
from edgeprune.structure.labels import Label, Labels, Value
from edgeprune.structure.propagation import Flow, arguments, rule


@rule("permute")
def permute(flow: Flow, node: fx.Node) -> Labels:
    args = arguments(node)
    labels = flow.labels(args["self"])
    return tuple(labels[int(dim)] for dim in args["dims"])


@rule("transpose")
def transpose(flow: Flow, node: fx.Node) -> Labels:
    args = arguments(node)
    labels = list(flow.labels(args["self"]))
    first, second = int(args["dim0"]), int(args["dim1"])
    labels[first], labels[second] = labels[second], labels[first]
    return tuple(labels)


@rule("t")
def matrix_transpose(flow: Flow, node: fx.Node) -> Labels:
    return flow.labels(node.all_input_nodes[0])[::-1]


@rule("cat", "concat", "concatenate")
def cat(flow: Flow, node: fx.Node) -> Labels:
    """The joined dimension keeps the labels of every part in order; the others are the same in all parts."""
    args = arguments(node)
    # Old models join with an empty one-dimensional tensor; torch ignores it, so do we.
    parts = [part for part in args["tensors"] if shape_of(part) != (0,)]
    labels = [flow.labels(part) for part in parts]
    axis = int(args["dim"]) % len(labels[0])
    result = list(labels[0])
    for other in labels[1:]:
        for dim, label in enumerate(other):
            if dim != axis and not (result[dim] is None and label is None):
                flow.couple(result[dim], label, node)
    result[axis] = _join(flow, node, [(shape_of(p)[axis], v[axis]) for p, v in zip(parts, labels, strict=True)])
    return tuple(result)


def _join(flow: Flow, node: fx.Node, parts: Sequence[tuple[int, Label]]) -> Label:
    """Labels end to end; indices without a label next to ones with get frozen ones."""
    if all(label is None for _, label in parts):
        return None
    reason = f"no channels of a layer, but joined with some by {describe(node)}"
    joined = []
    for size, label in parts:
        joined.append(flow.atoms.fresh(size) if label is None else label)
        if label is None:
            flow.atoms.freeze(joined[-1], reason)
    return np.concatenate(joined)


@rule("stack")
def stack(flow: Flow, node: fx.Node) -> Labels:
    args = arguments(node)
    labels = [flow.labels(part) for part in args["tensors"]]
    result = list(labels[0])
    for other in labels[1:]:
        for left, right in zip(result, other, strict=True):
            if not (left is None and right is None):
                flow.couple(left, right, node)
    result.insert(int(args["dim"]) % (len(result) + 1), None)
    return tuple(result)


@rule("pad", "constant_pad_nd")
def pad(flow: Flow, node: fx.Node) -> Labels:
    """Padding height and width passes; padded channels are constants in the code, so they are frozen."""
    args = arguments(node)
    labels = flow.labels(args["self"])
    result = list(labels)
    amounts = [(int(a), int(b)) for a, b in zip(args["pad"][::2], args["pad"][1::2], strict=True)]
    for dim, amount in zip(reversed(range(len(labels))), amounts, strict=False):
        if amount != (0, 0) and labels[dim] is not None:
            reason = f"the number of channels is padded by {describe(node)}"
            flow.atoms.freeze_all((labels[dim],), reason)
            result[dim] = flow.frozen_labels((shape_of(node)[dim],), reason)[0]
        elif amount != (0, 0):
            result[dim] = None
    return tuple(result)


@rule("unsqueeze")
def unsqueeze(flow: Flow, node: fx.Node) -> Labels:
    args = arguments(node)
    labels = list(flow.labels(args["self"]))
    labels.insert(int(args["dim"]) % (len(labels) + 1), None)
    return tuple(labels)


@rule("squeeze", "view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as")
def reshape(flow: Flow, node: fx.Node) -> Value:
    """Dimensions that stay whole keep their labels; several that become one repeat theirs.

    Feature f of a flattened (C, H, W) is of channel f // (H * W). A dimension of channels that is split, or two
    of them merged, cannot be followed: frozen.
    """
    source = node.all_input_nodes[0]
    old, new = shape_of(source), shape_of(node)
    labels = flow.labels(source)
    if math.prod(old) != math.prod(new):
        return flow.opaque(node, "the elements are read as another type")
    result: list[Label] = [None] * len(new)
    for ins, outs in _factor(old, new):
        carrying = [dim for dim in ins if labels[dim] is not None]
        if not carrying:
            continue
        if len(outs) == 1 and len(carrying) == 1:
            result[outs[0]] = _merged(labels, [old[dim] for dim in ins], ins)
            continue
        reason = f"channels are mixed by {describe(node)}"
        flow.atoms.freeze_all((labels[dim] for dim in carrying), reason)
        for dim, label in zip(outs, flow.frozen_labels([new[d] for d in outs], reason), strict=True):
            result[dim] = label
    return tuple(result)


def _factor(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The finest split of two shapes into runs of dimensions with equal products; ones are left out."""
    ins = [dim for dim, size in enumerate(old) if size != 1]
    outs = [dim for dim, size in enumerate(new) if size != 1]
    runs: list[tuple[list[int], list[int]]] = []
    i = o = 0
    while i < len(ins) and o < len(outs):
        left, right = [ins[i]], [outs[o]]
        size_in, size_out = old[ins[i]], new[outs[o]]
        i, o = i + 1, o + 1
        while size_in != size_out:
            if size_in < size_out:
                size_in *= old[ins[i]]
                left.append(ins[i])
                i += 1
            else:
                size_out *= new[outs[o]]
                right.append(outs[o])
                o += 1
        runs.append((left, right))
    return runs


def _merged(labels: Labels, sizes: Sequence[int], dims: Sequence[int]) -> Label:
    """The label of several dimensions flattened to one, of which exactly one carries channels."""
    position = next(i for i, dim in enumerate(dims) if labels[dim] is not None)
    label = labels[dims[position]]
    assert label is not None
    shape = [1] * len(sizes)
    shape[position] = sizes[position]
    return np.broadcast_to(label.reshape(shape), sizes).reshape(-1).copy()


@rule("expand", "expand_as", "broadcast_to")
def expand(flow: Flow, node: fx.Node) -> Labels:
    """A dimension of size one that is repeated carries no channels."""
    source = node.all_input_nodes[0]
    labels = flow.labels(source)
    return (None,) * (len(shape_of(node)) - len(labels)) + labels


@rule("slice", "narrow")
def cut(flow: Flow, node: fx.Node) -> Value:
    """A part of a dimension. Channels: followed where the part is one of equal parts, else frozen."""
    args = arguments(node)
    labels = list(flow.labels(args["self"]))
    dim = int(args["dim"]) % len(labels)
    label = labels[dim]
    if label is None or shape_of(node)[dim] == len(label):
        return tuple(labels)
    size, begin = shape_of(node)[dim], int(args["start"] or 0)
    begin = begin + len(label) if begin < 0 else begin
    if args.get("step", 1) == 1 and size > 1 and len(label) % size == 0 and begin % size == 0:
        _couple_parts(flow, label, size)
        labels[dim] = label[begin : begin + size]
        return tuple(labels)
    return flow.opaque(node, "an unequal part of the channels is taken")


@rule("chunk", "split", "split_with_sizes", "tensor_split")
def split(flow: Flow, node: fx.Node) -> Value:
    """Equal parts of the channels shrink together (index by index); unequal parts are frozen."""
    args = arguments(node)
    labels = flow.labels(args["self"])
    dim = int(args["dim"]) % len(labels)
    label, sizes = labels[dim], [int(part.shape[dim]) for part in node.meta["val"]]
    if label is None:
        return [labels for _ in sizes]
    if len(set(sizes)) > 1 or sizes[0] == 1:
        return flow.opaque(node, "the channels are split into unequal or single parts")
    _couple_parts(flow, label, sizes[0])
    ends = np.cumsum(sizes).tolist()
    return [(*labels[:dim], label[end - size : end], *labels[dim + 1 :]) for end, size in zip(ends, sizes, strict=True)]


def _couple_parts(flow: Flow, label: Label, size: int) -> None:
    """Couple index i of every part of `size` channels, so that the parts stay equal."""
    assert label is not None
    parts = label.reshape(-1, size)
    for part in parts[1:]:
        flow.atoms.couple(parts[0], part)


@rule("select")
def select(flow: Flow, node: fx.Node) -> Value:
    args = arguments(node)
    labels = flow.labels(args["self"])
    dim = int(args["dim"]) % len(labels)
    if labels[dim] is not None:
        return flow.opaque(node, "a fixed channel is taken")
    return (*labels[:dim], *labels[dim + 1 :])


@rule("unbind")
def unbind(flow: Flow, node: fx.Node) -> Value:
    args = arguments(node)
    labels = flow.labels(args["self"])
    dim = int(args["dim"]) % len(labels)
    if labels[dim] is not None:
        return flow.opaque(node, "fixed channels are taken")
    return [(*labels[:dim], *labels[dim + 1 :]) for _ in node.meta["val"]]
