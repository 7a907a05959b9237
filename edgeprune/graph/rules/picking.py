"""Rules for operators that order, pick or look up: what they work along must stay, the other dimensions pass."""

from __future__ import annotations

from torch import Tensor, fx

from edgeprune.graph.flow import Flow, arguments, rule
from edgeprune.graph.labels import Value
from edgeprune.graph.trace import describe, operator_name, shape_of


@rule("topk", "sort", "msort", "argsort", "cummax", "cummin", "cumprod", "logcumsumexp", "softmin")
def ordered(flow: Flow, node: fx.Node) -> Value:
    """The dimension worked along must carry no channels; the others pass."""
    args = arguments(node)
    labels = list(flow.labels(args["self"]))
    if not labels:
        return flow.opaque(node, "no rule for this form of the operator")
    dim = 0 if operator_name(node) == "msort" else int(args["dim"]) % len(labels)
    flow.atoms.freeze_all((labels[dim],), f"all channels are read together by {describe(node)}")
    labels[dim] = None
    result = node.meta["val"]
    return tuple(labels) if isinstance(result, Tensor) else [tuple(labels) for _ in result]


@rule("embedding")
def embedding(flow: Flow, node: fx.Node) -> Value:
    """weight (words, O): out features are dimension 1; a word stays where it is."""
    args = arguments(node)
    weight, indices = args["weight"], args["indices"]
    flow.atoms.freeze_all(flow.labels(indices), f"words are looked up by {describe(node)}")
    words, out = flow.labels(weight)
    flow.atoms.freeze_all((words,), f"words are looked up by {describe(node)}")
    name = flow.parameters.get(weight)
    if name is not None and out is not None:
        flow.slots[name, 1].producer = True
    return (*(None,) * len(shape_of(indices)), out)


@rule("grid_sampler")
def grid_sampler(flow: Flow, node: fx.Node) -> Value:
    """Channels (dimension 1) pass; the grid says where it looks, and stays."""
    args = arguments(node)
    labels = flow.labels(args["input"])
    flow.atoms.freeze_all(labels[2:], f"channels lie in the spatial dimensions of {describe(node)}")
    flow.atoms.freeze_all(flow.labels(args["grid"]), f"they say where {describe(node)} looks")
    return (*labels[:2], *(None,) * (len(labels) - 2))
