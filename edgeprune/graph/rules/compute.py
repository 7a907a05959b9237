"""Rules for operators with parameters, pooling and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from edgeprune.graph.flow import Flow, arguments, rule
from edgeprune.graph.labels import Label, Labels, Value
from edgeprune.graph.rules.elementwise import elementwise
from edgeprune.graph.trace import describe, module_path, operator_name, shape_of


@rule("conv1d", "conv2d", "conv3d")
def convolution(flow: Flow, node: fx.Node) -> Value:
    """weight (O, I/groups, *kernel). In channels meet weight dimension 1, out channels are weight dimension 0.

    Depthwise: out channels i*m..i*m+m-1 stay with in channel i. Other grouped convolutions: index j of every
    group goes together, so that all groups stay equally wide.
    """
    args = arguments(node)
    source = args["input"]
    weight = args["weight"] if args["weight"] in flow.parameters else _made_from(flow, node, args["weight"])
    if weight is None:
        return flow.opaque(node, "the weight is computed, not a parameter")
    labels = flow.labels(source)
    if len(labels) != len(shape_of(weight)):
        return flow.opaque(node, "an input without a batch dimension")
    passing = tuple(label if alone else None for label, alone in zip(labels[2:], _pointwise(node), strict=True))
    wide = [label for label, passed in zip(labels[2:], passing, strict=True) if passed is None]
    flow.atoms.freeze_all(wide, f"channels lie in the spatial dimensions of {describe(node)}")
    out, inner = flow.labels(weight)[:2]
    groups, channels = int(args["groups"]), shape_of(source)[1]
    if groups == 1:
        flow.couple(labels[1], inner, node)
        _consumes(flow, weight, 1)
    elif groups == channels:
        _couple_depthwise(flow, node, labels[1], out, channels)
    else:
        source_parts = None if labels[1] is None else labels[1][: channels // groups]
        flow.atoms.couple_parts(labels[1], channels // groups)
        flow.couple(source_parts, inner, node)
        _couple_grouped(flow, out, groups)
        _consumes(flow, weight, 1)
    _produces(flow, weight, args["bias"], node)
    return (labels[0], out, *passing)


def _made_from(flow: Flow, node: fx.Node, computed: fx.Node) -> fx.Node | None:
    """The parameter that a convolution's weight is computed from, if its module does so from its own parameters alone.

    Weight standardization is such a thing: the statistics of a filter run over its inputs, so what a pruned model
    computes is the standardization over those that stay (as with norms).
    """
    path = module_path(node)
    if not isinstance(flow.module.get_submodule(path), nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return None
    own = {name: parameter for parameter, name in flow.parameters.items() if name.rpartition(".")[0] == path}
    source = own.get(f"{path}.weight")
    if source is None or shape_of(source) != shape_of(computed):
        return None
    waiting = [computed]
    while waiting:
        value = waiting.pop()
        if value.op == "placeholder" and flow.parameters.get(value) not in own:
            return None
        waiting += value.all_input_nodes
    if path not in flow.standardized:
        flow.standardized.append(path)
    return source


def _pointwise(node: fx.Node) -> list[bool]:
    """The spatial dimensions along which a convolution looks at one place for each it answers."""
    args = arguments(node)
    kernel = shape_of(args["weight"])[2:]
    stride, padding = (_each(args[name], len(kernel)) for name in ("stride", "padding"))
    return [k == 1 and s == 1 and p in (0, "same", "valid") for k, s, p in zip(kernel, stride, padding, strict=True)]


def _each(value: Any, count: int) -> list[Any]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * count if len(values) == 1 else values


def _couple_depthwise(flow: Flow, node: fx.Node, source: Label, out: Label, channels: int) -> None:
    assert out is not None
    if source is None:
        flow.couple(source, out, node)
    else:
        flow.atoms.couple(np.repeat(source, len(out) // channels), out)


def _couple_grouped(flow: Flow, label: Label, groups: int) -> None:
    """Index j of every group goes together, so that all stay equally wide."""
    if label is not None:
        flow.atoms.couple_parts(label, len(label) // groups)
        if len(label) == groups:
            flow.atoms.freeze(label, "a grouped convolution with one output channel per group")


@rule("linear")
def linear(flow: Flow, node: fx.Node) -> Value:
    """weight (O, I): in features meet dimension 1, out features are dimension 0."""
    args = arguments(node)
    weight = args["weight"]
    labels = flow.labels(args["input"])
    if len(flow.labels(weight)) != 2:
        return flow.opaque(node, "no rule for this form of the operator")
    out, inner = flow.labels(weight)
    if weight not in flow.parameters:  # a product of two values, as a head's that compares directions
        flow.sum_over((args["input"], labels[-1]), (weight, inner), node)
        if args["bias"] is not None:
            flow.couple(out, flow.labels(args["bias"])[0], node)
        return (*labels[:-1], out)
    flow.couple(labels[-1], inner, node)
    _consumes(flow, weight, 1)
    _produces(flow, weight, args["bias"], node)
    return (*labels[:-1], out)


def _consumes(flow: Flow, weight: fx.Node, dim: int) -> None:
    slots = flow.slots.get((flow.parameters[weight], dim))
    if slots is not None:
        slots.consumed = True


def _produces(flow: Flow, weight: fx.Node, bias: fx.Node | None, node: fx.Node) -> None:
    slots = flow.slots.get((flow.parameters[weight], 0))
    if slots is not None:
        slots.producer = True
        if bias is not None:
            flow.couple(slots.atoms, flow.labels(bias)[0], node)


@rule("batch_norm", "instance_norm")
def batch_norm(flow: Flow, node: fx.Node) -> Labels:
    """Scale, bias and statistics of a channel go with it (dimension 1)."""
    args = arguments(node)
    labels = flow.labels(args["input"])
    _couple_vectors(flow, args, labels[1], node)
    return labels


@rule("layer_norm", "rms_norm")
def layer_norm(flow: Flow, node: fx.Node) -> Labels:
    """The statistics run over the last dimension: a channel less there changes all the others.

    So what a pruned model computes is the norm over the channels that stay. It can be followed where the norm is a
    module's own (`normalized_shape` and the scale shrink with it); any other is frozen.
    """
    args = arguments(node)
    labels = flow.labels(args["input"])
    count = len(args["normalized_shape"])
    if count == 1 and labels[-1] is not None and _is_own(flow, node, args["weight"], "normalized_shape"):
        _couple_vectors(flow, args, labels[-1], node)
        inside = args["input"].op == "call_function" and module_path(args["input"]) == module_path(node)
        flow.normalize(labels[-1], 1 if inside and operator_name(args["input"]) == "permute" else -1, node)
        return labels
    return _frozen_norm(flow, args, labels[-count:], node)


@rule("group_norm")
def group_norm(flow: Flow, node: fx.Node) -> Labels:
    """As `layer_norm`, over each group of channels (dimension 1); index j of every group goes together."""
    args = arguments(node)
    labels = flow.labels(args["input"])
    groups = int(args["num_groups"])
    flow.atoms.freeze_all(labels[2:], f"channels lie in the spatial dimensions of {describe(node)}")
    if labels[1] is not None and _is_own(flow, node, args["weight"], "num_channels"):
        _couple_vectors(flow, args, labels[1], node)
        if groups > 1:
            _couple_grouped(flow, labels[1], groups)
        flow.normalize(labels[1], 1, node)
        return labels
    return _frozen_norm(flow, args, labels[1:], node)


def _is_own(flow: Flow, node: fx.Node, weight: Any, attribute: str) -> bool:
    """Whether a norm is computed by a module that keeps its width and its scale, if it has one."""
    path = module_path(node)
    owner = flow.module.get_submodule(path)
    scale = f"{path}.weight" if getattr(owner, "weight", None) is not None else None
    return flow.parameters.get(weight) == scale and hasattr(owner, attribute)


def _vectors(args: dict[str, Any]) -> list[fx.Node]:
    """What a norm has for each of its channels."""
    names = ("weight", "bias", "running_mean", "running_var")
    return [value for name in names if isinstance(value := args.get(name), fx.Node)]


def _couple_vectors(flow: Flow, args: dict[str, Any], label: Label, node: fx.Node) -> None:
    for vector in _vectors(args):
        flow.couple(label, flow.labels(vector)[0], node)


def _frozen_norm(flow: Flow, args: dict[str, Any], over: Labels, node: fx.Node) -> Labels:
    """A norm whose statistics run over these channels, and that cannot be followed."""
    reason = f"its statistics run over the channels: {describe(node)}"
    for labels in (over, *(flow.labels(vector) for vector in _vectors(args))):
        flow.atoms.freeze_all(labels, reason)
    return flow.labels(args["input"])


@rule(
    *(f"{name}{n}d" for n in (1, 2, 3) for name in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")),
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
    *(f"{name}{n}d" for n in (1, 2, 3) for name in ("upsample_nearest", "_upsample_nearest_exact")),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)
def spatial(flow: Flow, node: fx.Node) -> Value:
    """Channels (dimension 1) pass; height and width (length, depth) change."""
    labels = flow.labels(node.all_input_nodes[0])
    (count,) = (n for n in (1, 2, 3) if f"{n}d" in operator_name(node))
    reason = f"channels lie in the spatial dimensions of {describe(node)}"
    flow.atoms.freeze_all(labels[-count:], reason)
    passed = (*labels[:-count], *(None,) * count)
    result = node.meta["val"]
    return passed if isinstance(result, Tensor) else [passed for _ in result]


_ZEROS_DONT_COUNT = ("sum", "linalg_vector_norm")
_NOT_NEGATIVE = ("relu", "relu6", "abs", "square")


@rule("max", "min", "median", "nanmedian", "mode", "kthvalue", "aminmax", "var_mean", "std_mean")
def reductions(flow: Flow, node: fx.Node) -> Value:
    """As `reduction`, with several results (values and where they were); max and min of two values go index by
    index."""
    if "other" in arguments(node):
        return elementwise(flow, node)
    result = reduction(flow, node)
    if isinstance(node.meta["val"], Tensor) or isinstance(result, list):
        return result
    return [result for _ in node.meta["val"]]


@rule("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "prod")
@rule("logsumexp", "argmax", "argmin", "all", "any", "nansum", "nanmean", "count_nonzero")
def reduction(flow: Flow, node: fx.Node) -> Value:
    """Reduced dimensions must carry no channels, unless zeros don't count in the result, or nobody reads it; the others
    pass."""
    args = arguments(node)
    if not isinstance(args.get("dim"), int | list | tuple | None) or "val" not in node.meta:
        return flow.opaque(node, "no rule for this form of the operator")
    labels = flow.labels(args["self"])
    dims = args.get("dim")
    chosen = range(len(labels)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    reduced = {int(dim) % len(labels) for dim in chosen} if labels else set()
    if _is_norm(flow, node, [labels[dim] for dim in reduced]):
        (dim,) = (dim for dim in reduced if labels[dim] is not None)
        label = labels[dim]
        assert label is not None
        flow.normalize(label, dim if dim < len(labels) - 1 else -1, node)
    elif flow.zero.get(args["self"]) and (operator_name(node) in _ZEROS_DONT_COUNT or _of_no_negative(node)):
        flow.mixed += [(label, "summed") for dim in reduced if (label := labels[dim]) is not None]
    elif node in flow.read:
        flow.atoms.freeze_all((labels[dim] for dim in reduced), f"all channels are reduced to one by {describe(node)}")
    if args.get("keepdim"):
        return tuple(None if dim in reduced else label for dim, label in enumerate(labels))
    return tuple(label for dim, label in enumerate(labels) if dim not in reduced)


def _of_no_negative(node: fx.Node) -> bool:
    """Whether a largest value is taken of values that are never below zero, and nobody asks where it was."""
    source = arguments(node)["self"]
    places = [user for user in node.users if operator_name(node) == "max" and user.args[1:] != (0,)]
    return (
        operator_name(node) in ("amax", "max")
        and operator_name(source) in _NOT_NEGATIVE
        and not any(n.users for n in places)
    )


def _is_norm(flow: Flow, node: fx.Node, reduced: list[Label]) -> bool:
    """Whether a statistic over channels is taken in a norm written by hand, as in timm's GlobalResponseNorm: a module
    that holds vectors of the channels' number at most. It is one as `layer_norm` is."""
    path = module_path(node)
    owner = flow.module.get_submodule(path) if path else flow.module
    widths = {p.shape for p in owner.parameters()}
    channels = [label for label in reduced if label is not None]
    known = operator_name(node) in ("mean", "var", "std")
    named = bool(widths) or "norm" in type(owner).__name__.lower()
    return known and named and len(channels) == 1 and widths <= {(len(channels[0]),)}


@rule("softmax", "log_softmax", "_softmax", "cumsum")
def along(flow: Flow, node: fx.Node) -> Labels:
    """The dimension worked along must carry no channels; the others pass."""
    args = arguments(node)
    labels = flow.labels(args["self"])
    flow.atoms.freeze_all((labels[int(args["dim"])],), f"all channels are read together by {describe(node)}")
    return labels
