"""Rules for operators that move, join, cut or reshape dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import fx

from edgeprune.graph.flow import Flow, arguments, rule
from edgeprune.graph.labels import Label, Labels, Value
from edgeprune.graph.statements import names_each_part
from edgeprune.graph.trace import describe, shape_of


@rule("permute")
def permute(flow: Flow, node: fx.Node) -> Labels:
    args = arguments(node)
    labels = flow.labels(args["self"])
    return tuple(labels[int(dim)] for dim in args["dims"])


@rule("transpose", "swapaxes", "swapdims", "mT", "mH", "adjoint")
def transpose(flow: Flow, node: fx.Node) -> Labels:
    args = arguments(node)
    labels = list(flow.labels(args["self"]))
    first, second = int(args.get("dim0", args.get("axis0", -2))), int(args.get("dim1", args.get("axis1", -1)))
    labels[first], labels[second] = labels[second], labels[first]
    return tuple(labels)


@rule("movedim", "moveaxis")
def movedim(flow: Flow, node: fx.Node) -> Labels:
    args = arguments(node)
    labels = flow.labels(args["self"])
    sides = [[value] if isinstance(value, int) else list(value) for value in (args["source"], args["destination"])]
    came, goes = ([int(dim) % len(labels) for dim in side] for side in sides)
    left = [label for dim, label in enumerate(labels) if dim not in came]
    for place, dim in sorted(zip(goes, came, strict=True)):
        left.insert(place, labels[dim])
    return tuple(left)


@rule("t", "numpy_T", "matrix_H")
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
            if dim != axis:
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


@rule("squeeze", "view", "reshape", "_unsafe_view", "flatten", "ravel", "unflatten", "view_as", "reshape_as")
def reshape(flow: Flow, node: fx.Node) -> Value:
    """Dimensions that stay whole keep their labels; those that are split or flattened are laid out over axes.

    Feature f of a flattened (C, H, W), of which only C carries channels, is of channel f // (H * W): it keeps that
    channel's label. Dimensions that are regrouped in any other way cannot be followed: frozen.
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
        if len(outs) == 1:
            result[outs[0]] = _flattened(flow, node, labels, old, ins)
            continue
        whole = labels[ins[0]] if len(ins) == 1 else _flattened(flow, node, labels, old, ins)
        assert whole is not None
        axes = flow.atoms.split(whole, tuple(new[dim] for dim in outs), describe(node))
        for dim, label in zip(outs, axes, strict=True):
            result[dim] = label
    return tuple(result)


def _flattened(flow: Flow, node: fx.Node, labels: Labels, old: Sequence[int], ins: Sequence[int]) -> Label:
    """The label of several dimensions in one."""
    sizes = tuple(old[dim] for dim in ins)
    if sum(labels[dim] is not None for dim in ins) == 1:
        return _merged(labels, sizes, ins)
    return flow.atoms.merge(tuple(labels[dim] for dim in ins), sizes, describe(node))


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
    """A dimension of size one that is repeated has whatever channels it meets: it gets atoms of its own for them.

    The first dimension is the batch: tokens are repeated over it, and it carries no channels.
    """
    source = node.all_input_nodes[0]
    sizes, shape = shape_of(source), shape_of(node)
    labels = (None,) * (len(shape) - len(sizes)) + flow.labels(source)
    sizes = (1,) * (len(shape) - len(sizes)) + sizes
    sides = enumerate(zip(sizes, shape, labels, strict=True))
    return tuple(flow.atoms.fresh(new) if dim and old == 1 < new else label for dim, (old, new, label) in sides)


@rule("slice", "narrow")
def cut(flow: Flow, node: fx.Node) -> Value:
    """A part of a dimension. One of several equal parts shrinks with the others; any other must stay as it is."""
    args = arguments(node)
    labels = list(flow.labels(args["self"]))
    dim = int(args["dim"]) % len(labels)
    label = labels[dim]
    if label is None or shape_of(node)[dim] == len(label):
        return tuple(labels)
    size, begin, step = shape_of(node)[dim], int(args["start"] or 0), int(args.get("step") or 1)
    begin = begin + len(label) if begin < 0 else begin
    if step == 1 and size > 1 and len(label) % size == 0 and begin % size == 0:
        flow.atoms.couple_parts(label, size)
    else:
        flow.atoms.freeze(label, f"an unequal part of the channels is taken: {describe(node)}")
    labels[dim] = label[begin : begin + size * step : step]
    return tuple(labels)


@rule("chunk", "split", "split_with_sizes", "tensor_split")
def split(flow: Flow, node: fx.Node) -> Value:
    """Equal parts of the channels shrink together (index by index); unequal ones each for itself, if the code can, and
    so do equal ones of which the code names each size."""
    args = arguments(node)
    labels = flow.labels(args["self"])
    dim = int(args["dim"]) % len(labels)
    label, sizes = labels[dim], [int(part.shape[dim]) for part in node.meta["val"]]
    if label is None:
        return [labels for _ in sizes]
    if len(set(sizes)) == 1 and sizes[0] > 1 and not names_each_part(node, len(sizes)):
        flow.atoms.couple_parts(label, sizes[0])
    elif 1 in sizes:
        flow.atoms.freeze(label, f"single channels are split off: {describe(node)}")
    ends = np.cumsum(sizes).tolist()
    return [(*labels[:dim], label[end - size : end], *labels[dim + 1 :]) for end, size in zip(ends, sizes, strict=True)]


@rule("select")
def select(flow: Flow, node: fx.Node) -> Value:
    """One index of a dimension: it must stay where it is, so its dimension is frozen; the others pass."""
    args = arguments(node)
    labels = flow.labels(args["self"])
    dim = int(args["dim"]) % len(labels)
    flow.atoms.freeze_all((labels[dim],), f"a fixed channel is taken: {describe(node)}")
    return (*labels[:dim], *labels[dim + 1 :])


@rule("unbind")
def unbind(flow: Flow, node: fx.Node) -> Value:
    """All indices of a dimension, each for itself: as `select`."""
    args = arguments(node)
    labels = flow.labels(args["self"])
    dim = int(args["dim"]) % len(labels)
    flow.atoms.freeze_all((labels[dim],), f"fixed channels are taken: {describe(node)}")
    return [(*labels[:dim], *labels[dim + 1 :]) for _ in node.meta["val"]]


@rule("index")
def index(flow: Flow, node: fx.Node) -> Value:
    """Dimensions that are indexed by tensors side by side give way to those of the indices; the others pass."""
    args = arguments(node)
    labels, chosen = flow.labels(args["self"]), list(args["indices"])
    places = [dim for dim, indices in enumerate(chosen) if indices is not None]
    if not places or places != list(range(places[0], places[-1] + 1)):
        return flow.opaque(node, "no rule for this form of the operator")
    flow.atoms.freeze_all((labels[dim] for dim in places), f"channels are picked by {describe(node)}")
    new = len(shape_of(node)) - (len(labels) - len(places))
    return (*labels[: places[0]], *(None,) * new, *labels[places[-1] + 1 :])


@rule("index_select", "gather", "take_along_dim", "unfold")
def picked(flow: Flow, node: fx.Node) -> Value:
    """The dimension that is picked from must stay whole; the others pass (`unfold` puts its windows last)."""
    args = arguments(node)
    labels = list(flow.labels(args["self"]))
    dim = int(args["dim" if "dim" in args else "dimension"]) % len(labels)
    flow.atoms.freeze_all((labels[dim],), f"channels are picked by {describe(node)}")
    labels[dim] = None
    return (*labels, *(None,) * (len(shape_of(node)) - len(labels)))


@rule("roll", "flip", "tril", "triu")
def moved(flow: Flow, node: fx.Node) -> Value:
    """Dimensions along which elements change places must stay; the others pass."""
    args = arguments(node)
    labels = flow.labels(args["self"])
    dims = [int(dim) % len(labels) for dim in args["dims"]] if "dims" in args else [-2, -1]
    chosen = [labels[dim] for dim in dims] if dims else list(labels)
    flow.atoms.freeze_all(chosen, f"channels change places in {describe(node)}")
    return labels


@rule("repeat", "tile")
def repeat(flow: Flow, node: fx.Node) -> Value:
    """Copies end to end are of the same channels."""
    args = arguments(node)
    times = [int(count) for count in args.get("repeats", args.get("dims", ()))]
    labels = flow.labels(args["self"])
    times = [1] * (len(labels) - len(times)) + times
    labels = (*(None,) * (len(times) - len(labels)), *labels)
    return tuple(None if label is None else np.tile(label, n) for label, n in zip(labels, times, strict=True))


@rule("repeat_interleave")
def repeat_interleave(flow: Flow, node: fx.Node) -> Value:
    """Copies side by side are of the same channels."""
    args = arguments(node)
    if not isinstance(args.get("repeats"), int) or args.get("dim") is None:
        return flow.opaque(node, "no rule for this form of the operator")
    labels = list(flow.labels(args["self"]))
    dim = int(args["dim"]) % len(labels)
    label = labels[dim]
    labels[dim] = None if label is None else np.repeat(label, args["repeats"])
    return tuple(labels)


@rule("glu")
def glu(flow: Flow, node: fx.Node) -> Value:
    """The halves of a dimension are multiplied: they go together, index by index."""
    args = arguments(node)
    labels = list(flow.labels(args["self"]))
    dim = int(args["dim"]) % len(labels)
    label = labels[dim]
    if label is not None:
        flow.atoms.couple_parts(label, len(label) // 2)
        labels[dim] = label[: len(label) // 2]
    return tuple(labels)


@rule("pixel_shuffle")
def pixel_shuffle(flow: Flow, node: fx.Node) -> Value:
    """Channel c of the result is made of channels c * r^2 ... of the input, which become pixels."""
    args = arguments(node)
    labels = flow.labels(args["self"])
    if labels[-3] is None:
        return labels
    r = int(args["upscale_factor"])
    channels, *pixels = flow.atoms.split(labels[-3], (len(labels[-3]) // r**2, r, r), describe(node))
    flow.atoms.freeze_all(pixels, f"channels become pixels in {describe(node)}")
    return (*labels[:-3], channels, None, None)


@rule("pixel_unshuffle", "im2col")
def pixels_to_channels(flow: Flow, node: fx.Node) -> Value:
    """Each channel becomes several, side by side: one for each pixel of a block or window."""
    source = node.all_input_nodes[0]
    labels = flow.labels(source)
    flow.atoms.freeze_all(labels[-2:], f"channels lie in the spatial dimensions of {describe(node)}")
    label = labels[-3]
    dim = len(labels) - 3
    wide = None if label is None else np.repeat(label, shape_of(node)[dim] // len(label))
    return (*labels[:-3], wide, *(None,) * (len(shape_of(node)) - dim - 1))
