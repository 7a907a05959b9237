"""Rules for operators that act on every element alone, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx

from edgeprune.graph.flow import Flow, rule
from edgeprune.graph.labels import Label, Labels
from edgeprune.graph.trace import shape_of

ACTIVATIONS = (
    *("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max", "gelu", "silu", "hardswish", "hardsigmoid"),
    *("sigmoid", "tanh", "elu", "selu", "celu", "leaky_relu", "mish", "softplus", "log_sigmoid", "threshold"),
)
UNARY = (
    *("abs", "neg", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square", "reciprocal", "erf", "sin", "cos"),
    *("floor", "ceil", "round", "sign", "pow", "isnan", "isinf", "logical_not", "rsub"),
    *("zeros_like", "ones_like", "full_like"),
)
PASSING = (
    *("dropout", "feature_dropout", "alpha_dropout", "alias", "contiguous", "clone", "detach", "to", "_to_copy"),
    *("lift_fresh_copy", "lift_fresh", "identity", "type_as"),
)
BINARY = (
    *("add", "sub", "mul", "div", "maximum", "minimum", "where", "eq", "ne", "lt", "le", "gt", "ge"),
    *("logical_and", "logical_or", "addcmul", "lerp", "masked_fill"),
)


@rule(*ACTIVATIONS, *UNARY, *PASSING, *BINARY)
def elementwise(flow: Flow, node: fx.Node) -> Labels:
    """Operands are aligned at the last dimension; channels that meet at an index are coupled."""
    tensors = [operand for operand in node.all_input_nodes if isinstance(operand.meta.get("val"), Tensor)]
    sides = [(shape_of(operand), flow.labels(operand)) for operand in tensors]
    return broadcast(flow, node, sides, len(shape_of(node)))


def broadcast(flow: Flow, node: fx.Node, operands: Sequence[tuple[tuple[int, ...], Labels]], count: int) -> Labels:
    """The labels of `count` dimensions that are aligned at the last one; those that meet are coupled."""
    result: list[Label] = [None] * count
    seen = [False] * count
    for sizes, labels in operands:
        for dim, (size, label) in enumerate(zip(sizes, labels, strict=True), start=count - len(sizes)):
            if size == 1:
                continue  # all indices read the same element
            if seen[dim]:
                flow.couple(result[dim], label, node)
            result[dim] = label if result[dim] is None else result[dim]
            seen[dim] = True
    return tuple(result)


@rule("prelu")
def prelu(flow: Flow, node: fx.Node) -> Labels:
    """One slope per channel (dimension 1), or one for all."""
    source, slope = node.all_input_nodes
    labels = flow.labels(source)
    if shape_of(slope)[0] > 1:
        flow.couple(labels[1], flow.labels(slope)[0], node)
    return labels


@rule("zeros", "ones", "full", "arange", "empty")
def constant(flow: Flow, node: fx.Node) -> Labels:
    """A constant carries no channels: whatever it meets is frozen."""
    del flow
    return (None,) * len(shape_of(node))


@rule("_assert_tensor_metadata", "_assert_scalar", "_assert_async")
def nothing(flow: Flow, node: fx.Node) -> Labels:
    """Checks that return nothing."""
    del flow, node
    return ()
