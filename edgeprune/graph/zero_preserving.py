"""Is a masked channel still zero where a value is computed?

Masking zeroes what computes a channel and what reads it, so a linear layer never sees what happens to the channel in
between. A sum over channels does: a product of activations, a norm of a vector. There the channel must be zero, which
it is as long as only functions with f(0) = 0 have been applied since it was made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import fx

from edgeprune.graph.trace import operator_name, shape_of

if TYPE_CHECKING:
    from edgeprune.graph.flow import Flow

_MAKERS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear")
_KEEPING = (
    *("relu", "relu6", "hardtanh", "clamp_max", "gelu", "silu", "hardswish", "tanh", "elu", "selu", "celu"),
    *("leaky_relu", "mish", "abs", "neg", "sqrt", "square", "sin", "erf", "floor", "ceil", "round", "sign", "expm1"),
    *("log1p", "prelu", "dropout", "feature_dropout", "alpha_dropout", "alias", "contiguous", "clone", "detach", "to"),
    *("_to_copy", "type_as", "permute", "transpose", "t", "cat", "concat", "stack", "unsqueeze", "squeeze", "view"),
    *("reshape", "_unsafe_view", "flatten", "unflatten", "expand", "expand_as", "slice", "narrow", "chunk", "split"),
    *("split_with_sizes", "select", "unbind", "roll", "flip", "getitem", "index"),
    *(f"{name}{n}d" for n in (1, 2, 3) for name in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")),
    *("max", "amax", "min", "amin", "numpy_T", "mT", "swapaxes", "swapdims", "movedim", "embedding", "grid_sampler"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d"),
    *("upsample_bicubic2d", "upsample_trilinear3d", "mean", "sum", "repeat", "tile"),
    *("im2col", "col2im", "index_select", "linalg_vector_norm", "norm", "lift_fresh_copy", "view_as", "reshape_as"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "matmul", "bmm", "repeat_interleave", "mm"),
)


def stays_zero(node: fx.Node, flow: Flow) -> bool:
    """Whether a masked channel is zero in a node's result; what is not known is not zero."""
    name = operator_name(node)
    rule = _RULES.get(name)
    if rule is not None:
        return rule(node, flow)
    return name in _KEEPING and _all(node, flow)


def _made(node: fx.Node, flow: Flow) -> bool:
    """A layer with weights makes the channel: its filter and bias are zero. One that lies in a spatial dimension (of a
    pointwise layer) only passes, and meets the bias."""
    bias = node.args[2] if len(node.args) > 2 else None
    if isinstance(bias, fx.Node) and not flow.zero.get(bias, False):
        return False  # it is computed, and nobody knows from what
    spatial = () if operator_name(node) == "linear" else flow.labels(node)[2:]
    return all(label is None for label in spatial) or (bias is None and _all(node, flow))


def _all(node: fx.Node, flow: Flow) -> bool:
    operands = [n for n in node.all_input_nodes if flow.values.get(n, ()) != ()]
    return bool(operands) and all(flow.zero.get(operand, False) for operand in operands)


def _sum(node: fx.Node, flow: Flow) -> bool:
    """A number or a smaller operand that is added reaches every channel, also the masked ones."""
    shape = shape_of(node)
    carrying = [dim - len(shape) for dim, label in enumerate(flow.labels(node)) if label is not None]

    def reaches_all(operand: fx.Node) -> bool:
        sizes = shape_of(operand)
        return any(len(sizes) < -dim or sizes[dim] == 1 for dim in carrying)

    numbers = any(isinstance(arg, int | float) and arg != 0 for arg in node.args[:2])
    return not numbers and _all(node, flow) and not any(reaches_all(n) for n in node.all_input_nodes)


def _padded(node: fx.Node, flow: Flow) -> bool:
    value = node.args[3] if len(node.args) > 3 else node.kwargs.get("value")
    return value in (None, 0) and _all(node, flow)


def _power(node: fx.Node, flow: Flow) -> bool:
    exponent = node.args[1]
    return isinstance(exponent, int | float) and exponent > 0 and _all(node, flow)


def _clamped(node: fx.Node, flow: Flow) -> bool:
    low = node.args[1] if len(node.args) > 1 else node.kwargs.get("min")
    return (low is None or (isinstance(low, int | float) and low <= 0)) and _all(node, flow)


def _any(node: fx.Node, flow: Flow) -> bool:
    return any(flow.zero.get(operand, False) for operand in node.all_input_nodes)


def _argument(place: int) -> Callable[[fx.Node, Flow], bool]:
    """Zero where one argument is."""

    def rule(node: fx.Node, flow: Flow) -> bool:
        argument = node.args[place]
        return isinstance(argument, fx.Node) and flow.zero.get(argument, False)

    return rule


def _scaled(place: int) -> Callable[[fx.Node, Flow], bool]:
    """A norm with scale and shift: those of a masked channel are zero."""
    return lambda node, flow: len(node.args) > place and node.args[place] in flow.parameters


_RULES: dict[str, Callable[[fx.Node, Flow], bool]] = {
    **dict.fromkeys(_MAKERS, _made),
    **dict.fromkeys(("add", "sub"), _sum),
    **dict.fromkeys(("pad", "constant_pad_nd"), _padded),
    **dict.fromkeys(("clamp", "clamp_min"), _clamped),
    **dict.fromkeys(("batch_norm", "instance_norm"), _scaled(1)),
    **dict.fromkeys(("layer_norm", "group_norm", "rms_norm"), _scaled(2)),
    "pow": _power,
    "mul": _any,
    "div": _argument(0),
    "scaled_dot_product_attention": _argument(2),
}
