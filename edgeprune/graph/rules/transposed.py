"""Rules for layers whose weight is laid out in another way than a convolution's: transposed, deformable, bilinear."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from edgeprune.graph.flow import Flow, arguments, rule
from edgeprune.graph.labels import Label, Value
from edgeprune.graph.rules.compute import convolution
from edgeprune.graph.trace import describe, shape_of


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed_convolution(flow: Flow, node: fx.Node) -> Value:
    """weight (I, O/groups, *kernel). In channels meet weight dimension 0, out channels are weight dimension 1.

    Depthwise: in channel i makes out channels i*m..i*m+m-1, and row i of the weight is both. Other grouped ones: index
    j of every group goes together, among the inputs and among the outputs.
    """
    args = arguments(node)
    source, weight = args["input"], args["weight"]
    if weight not in flow.parameters:
        return flow.opaque(node, "the weight is computed, not a parameter")
    labels = flow.labels(source)
    if len(labels) != len(shape_of(weight)):
        return flow.opaque(node, "an input without a batch dimension")
    flow.atoms.freeze_all(labels[2:], f"channels lie in the spatial dimensions of {describe(node)}")
    inner, each = flow.labels(weight)[:2]
    name, groups = flow.parameters[weight], int(args["groups"])
    out: Label
    flow.couple(labels[1], inner, node)
    if groups == shape_of(source)[1] > 1:
        assert inner is not None
        flow.atoms.freeze_all((each,), f"each channel has several of its own: {describe(node)}")
        out = np.repeat(inner, shape_of(weight)[1])
        flow.slots[name, 0].producer = True
    else:
        for dim in (0, 1):
            if (name, dim) in flow.slots:
                flow.slots[name, dim].consumed, flow.slots[name, dim].producer = dim == 0, dim == 1
        if inner is not None:
            for part in inner.reshape(groups, -1)[1:]:
                flow.atoms.couple(inner[: len(part)], part)
            if groups == len(inner):
                flow.atoms.freeze(inner, "a grouped convolution with one input channel per group")
        out = each if each is None or groups == 1 else np.tile(each, groups)
        if each is None and groups > 1:
            out = flow.frozen_labels((groups,), "a grouped convolution with one output channel per group")[0]
    if args["bias"] is not None:
        flow.couple(out, flow.labels(args["bias"])[0], node)
    return (labels[0], out, *(None,) * (len(labels) - 2))


@rule("torchvision::deform_conv2d")
def deformable_convolution(flow: Flow, node: fx.Node) -> Value:
    """As `conv2d`. Offsets and masks tell where it looks: they stay. With several offsets, index j of the channels of
    each goes together."""
    args = arguments(node)
    reason = f"they say where {describe(node)} looks"
    for name in ("offset", "mask"):
        if isinstance(args[name], fx.Node):
            flow.atoms.freeze_all(flow.labels(args[name]), reason)
    label, parts = flow.labels(args["input"])[1], int(args["n_offset_grps"])
    if label is not None and parts > 1:
        for part in label.reshape(parts, -1)[1:]:
            flow.atoms.couple(label[: len(part)], part)
        if parts == len(label):
            flow.atoms.freeze(label, reason)
    return convolution(flow, node)


@rule("bilinear")
def bilinear(flow: Flow, node: fx.Node) -> Value:
    """weight (O, I1, I2): the features of each input meet a dimension of their own, out features are dimension 0."""
    args: dict[str, Any] = arguments(node)
    weight = args["weight"]
    if weight not in flow.parameters:
        return flow.opaque(node, "the weight is computed, not a parameter")
    one, two = flow.labels(args["input1"]), flow.labels(args["input2"])
    out, *inner = flow.labels(weight)
    for dim, (side, own) in enumerate(zip((one, two), inner, strict=True), start=1):
        flow.couple(side[-1], own, node)
        if (flow.parameters[weight], dim) in flow.slots:
            flow.slots[flow.parameters[weight], dim].consumed = True
    for left, right in zip(one[:-1], two[:-1], strict=True):
        if left is not None or right is not None:
            flow.couple(left, right, node)
    if out is not None:
        flow.slots[flow.parameters[weight], 0].producer = True
        if args["bias"] is not None:
            flow.couple(out, flow.labels(args["bias"])[0], node)
    return (*one[:-1], out)
