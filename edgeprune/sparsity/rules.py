"""Whether XNNPACK will run a .tflite file with its sparse kernels, told from the file alone.

XNNPACK (`xnn_subgraph_rewrite_for_nchw`) computes a *cluster* of operators channels first, and only there takes its
kernel for sparse 1x1 convolutions (SPMM). A cluster begins with the convolution of an RGB image that makes it channels
first, ends in means over height and width, holds nothing but operators with channels-first kernels, and gives none of
its values to others. One operator that does not fit, and the file runs dense, without a word, or, where values leave
the cluster (LiteRT 2.3.0), wrongly. So each rule here names the operators that break it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edgeprune.latency.tflite_check import UNREADABLE, damaged
from edgeprune.records import Record
from edgeprune.sparsity.graph import Graph, Operator, Sides

RuleName = Literal["begins", "types", "operators", "ends", "closed", "stored", "zeros"]
SAID: dict[RuleName, str] = {
    "begins": "begins with a 3x3 convolution of 3 channels, stride 2, padded by 1 on all sides",
    "types": "computes in float32, with weights that are constants",
    "operators": "holds only operators with channels-first kernels",
    "ends": "ends in a mean over height and width",
    "closed": "gives its images to nobody else",
    "stored": "has weights stored sparsely",
    "zeros": "more than two thirds of the weights of its 1x1 convolutions and linear layers are zero",
}
_UNARY = {
    *("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGISTIC", "NEG"),
    *("RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIN", "SQRT", "SQUARE", "TANH"),
}
Role = Literal["begin", "inside", "end"]
Fit = tuple[Role | None, RuleName, str]  # no role: the rule that is broken, and why
BEGIN: Fit = ("begin", "begins", "")
INSIDE: Fit = ("inside", "operators", "")
END: Fit = ("end", "ends", "")


class Breach(Record):
    """What breaks a rule: an operator (none: the file as a whole), and why."""

    operator: str | None
    why: str


class Rule(Record):
    """One rule of the cluster, and all that breaks it."""

    name: RuleName
    said: str
    breaches: tuple[Breach, ...]

    @property
    def holds(self) -> bool:
        return not self.breaches


class SparseCheck(Record):
    """The rules, and what would be computed sparsely: the 1x1 convolutions of the cluster (`layers`).
    `weights` and `zeros` are those that XNNPACK counts: a linear layer's too."""

    rules: tuple[Rule, ...]
    layers: int
    weights: int
    zeros: int

    @property
    def holds(self) -> bool:
        return all(rule.holds for rule in self.rules)

    @property
    def why_not(self) -> str:
        """The broken rules in one line, each with the first operator that breaks it; empty if all hold."""
        return self.broken()

    def broken(self, *, but: Collection[RuleName] = ()) -> str:
        """The same of all rules but some."""
        told = []
        for rule in self.rules:
            if rule.breaches and rule.name not in but:
                first = rule.breaches[0]
                more = f" and {len(rule.breaches) - 1} more" if len(rule.breaches) > 1 else ""
                told.append(f"`{rule.name}`: {f'{first.operator}{more}: ' if first.operator else ''}{first.why}")
        return "; ".join(told)


def check_sparse(file: Path) -> SparseCheck:
    """Hold a .tflite file against the rules.

    The cluster is the last one with a 1x1 convolution that nothing stands against, else the one that the last spatial
    mean with a 1x1 convolution before it belongs to; without such a mean, the one of the last 1x1 convolution.

    Raises:
        UsageError: the file cannot be read, is no .tflite file, is damaged, or has several subgraphs.
    """
    try:
        return _checked(Graph(file))
    except UNREADABLE as error:
        raise damaged(error, str(file)) from error


def _checked(graph: Graph) -> SparseCheck:
    clusters = [_cluster(graph, end) for end in reversed(graph.operators) if _role(graph, end)[0] == "end"]
    clusters = [c for c in clusters if any(is_1x1(graph, o) for o in c.members.values())]
    cluster = next((c for c in clusters if not c.breaches), clusters[0] if clusters else None)
    if cluster is None:
        last = next((o for o in reversed(graph.operators) if is_1x1(graph, o)), None)
        cluster = _cluster(graph, last) if last is not None else _Cluster()
        what = "no mean over height and width follows" if last else "there is no 1x1 convolution"
        cluster.broken("ends", str(last) if last else None, what)
    layers = [o for o in cluster.members.values() if is_1x1(graph, o)]
    linear = [o for o in cluster.members.values() if is_counted_linear(o)]
    sizes = {o: _weights_and_zeros(graph, o) for o in (*layers, *linear)}
    weights, zeros = (sum(pair[i] for pair in sizes.values()) for i in (0, 1))
    if layers and not any(graph.is_sparse(o.constants[0]) for o in layers):
        cluster.broken("stored", None, "all weights are stored densely")
    if layers and 3 * zeros <= 2 * weights:
        dense = max(sizes, key=lambda o: sizes[o][0] - sizes[o][1])
        left = (sizes[dense][0] - sizes[dense][1]) / (weights - zeros)
        why = f"{zeros / weights:.1%} of {weights} weights are zero; {left:.0%} of the others are in this layer"
        cluster.broken("zeros", str(dense), why)
    rules = tuple(
        Rule(name=name, said=said, breaches=tuple(cluster.breaches.get(name, ()))) for name, said in SAID.items()
    )
    return SparseCheck(rules=rules, layers=len(layers), weights=weights, zeros=zeros)


def is_1x1(graph: Graph, operator: Operator) -> bool:
    """Whether an operator is a 1x1 convolution with constant weights."""
    constant = len(operator.inputs) == 1 and bool(operator.constants)
    return operator.name == "CONV_2D" and constant and _filter_size(graph, operator) == (1, 1)


def is_counted_linear(operator: Operator) -> bool:
    """Whether XNNPACK takes a linear layer for a 1x1 convolution and counts its zeros.

    It does where the layer keeps its input's dimensions. Else LiteRT reshapes the input first, which sets it apart.
    """
    constant = len(operator.inputs) == 1 and bool(operator.constants)
    return operator.name == "FULLY_CONNECTED" and constant and bool(operator.options.keepNumDims)


@dataclass
class _Cluster:
    members: dict[int, Operator] = field(default_factory=dict)
    breaches: dict[RuleName, list[Breach]] = field(default_factory=dict)

    def broken(self, rule: RuleName, operator: str | None, why: str) -> None:
        breach, there = Breach(operator=operator, why=why), self.breaches.setdefault(rule, [])
        if breach not in there:
            there.append(breach)


def _cluster(graph: Graph, seed: Operator) -> _Cluster:
    """All that has to be computed channels first if this operator is, and what stands against it."""
    found, waiting, seen = _Cluster(), [seed], set()
    while waiting:
        operator = waiting.pop()
        if operator.number in seen:
            continue
        seen.add(operator.number)
        role, rule, why = _role(graph, operator)
        if role is None:  # what lies before it is looked at too: all that stands against the cluster is told
            first = rule == "operators" and any(tensor in graph.inputs for tensor in operator.inputs)
            rule, why = ("begins", _why_no_beginning(graph, operator)) if first else (rule, why)
            found.broken(rule, str(operator), why)
            waiting += [graph.producer[tensor] for tensor in operator.inputs if tensor in graph.producer]
        else:
            found.members[operator.number] = operator
            waiting += _neighbours(graph, operator, role, found)
    return found


def _neighbours(graph: Graph, operator: Operator, role: Role, found: _Cluster) -> Iterator[Operator]:
    """What an operator of the cluster draws into it: who makes its images, and who takes them."""
    for tensor in operator.inputs if role != "begin" else ():
        maker = graph.producer.get(tensor)
        if maker is not None and maker.name == "DEPTH_TO_SPACE":
            found.broken("operators", str(operator), "takes an image from a DEPTH_TO_SPACE, which ends a cluster")
        elif maker is not None:
            yield maker
        else:
            found.broken("begins", str(operator), f"takes the file's input; {_why_no_beginning(graph, operator)}")
    for tensor in operator.outputs if operator.name != "DEPTH_TO_SPACE" else ():
        takers = graph.consumers(tensor)
        inside = [taker for taker in takers if _role(graph, taker)[0] in ("inside", "end")]
        if len(inside) == len(takers) and tensor not in graph.outputs:
            yield from inside
        elif role == "end" and not inside:
            continue  # written as others read it
        elif _positions(graph.shape(tensor)) > 1 or role == "end":
            yield from inside
            for taker in takers:
                kind, rule, why = _role(graph, taker)
                if kind is None:
                    found.broken(rule, str(taker), why)
                elif kind == "begin":
                    found.broken("closed", str(taker), "takes an image from within")
            if tensor in graph.outputs:
                found.broken("closed", str(operator), "makes an output of the file")


def _role(graph: Graph, operator: Operator) -> Fit:
    """What an operator can be in a cluster; if nothing, the rule it breaks and why."""
    filters = operator.constants[:1] if operator.name in _FILTERED else ()
    if not all(graph.is_float32(t) for t in (*operator.inputs, *filters, *operator.outputs)):
        return None, "types", "does not compute in float32"
    if operator.name in _FILTERED:
        computed = not filters or len(operator.inputs) != 1
        return (None, "types", "its weights are computed") if computed else _FILTERED[operator.name](graph, operator)
    if any(len(graph.shape(tensor)) != 4 for tensor in operator.inputs):
        return _unfit("takes no image")
    return _PLAIN.get(operator.name, _unknown)(graph, operator)


def _unfit(why: str) -> Fit:
    return None, "operators", why


def _unknown(_graph: Graph, _operator: Operator) -> Fit:
    return _unfit("has no channels-first kernel")


def _always(_graph: Graph, _operator: Operator) -> Fit:
    return INSIDE


def _mean(graph: Graph, operator: Operator) -> Fit:
    axes = {int(axis) % 4 for axis in graph.value(operator.constants[0]).reshape(-1)} if operator.constants else set()
    return END if axes == {1, 2} else _unfit("is over other axes than height and width")


def _two_images(_graph: Graph, operator: Operator) -> Fit:
    return _unfit("one operand is a constant") if operator.constants else INSIDE


def _resize(graph: Graph, operator: Operator) -> Fit:
    return INSIDE if min(graph.shape(operator.inputs[0])[1:3]) > 1 else _unfit("takes a single row or column")


def _convolution(graph: Graph, operator: Operator) -> Fit:
    options, kernel = operator.options, _filter_size(graph, operator)
    stride = (options.strideH, options.strideW)
    if kernel == (1, 1):
        reasons = [
            (_grouped(graph, operator), "1x1 in groups"),
            (stride != (1, 1), f"1x1 with stride {stride[0]}x{stride[1]}"),
            (operator.padding != (0, 0, 0, 0), f"1x1, {_padding_said(operator.padding)}"),
        ]
        return next((_unfit(why) for wrong, why in reasons if wrong), INSIDE)
    why = _why_no_beginning(graph, operator)
    return _unfit(f"{kernel[0]}x{kernel[1]}; {why}") if why else BEGIN


def _depthwise(graph: Graph, operator: Operator) -> Fit:
    options, (height, width) = operator.options, _filter_size(graph, operator)
    stride, side = (options.strideH, options.strideW), height // 2
    several = graph.shape(operator.inputs[0])[3] != graph.shape(operator.outputs[0])[3]
    reasons = [
        (several, "several filters a channel"),
        ((height, width) not in ((3, 3), (5, 5)), f"{height}x{width}; there are kernels for 3x3 and 5x5"),
        (stride not in ((1, 1), (2, 2)), f"stride {stride[0]}x{stride[1]}"),
        ((options.dilationHFactor, options.dilationWFactor) != (1, 1), "dilated"),
        (operator.padding != (side,) * 4, f"{_padding_said(operator.padding)}, not by {side} on all sides"),
    ]
    return next((_unfit(why) for wrong, why in reasons if wrong), INSIDE)


def _linear(_graph: Graph, operator: Operator) -> Fit:
    return INSIDE if is_counted_linear(operator) else _unfit("reshapes what it takes")


_FILTERED = {"CONV_2D": _convolution, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _linear}
_PLAIN = {
    **dict.fromkeys(_UNARY, _always),
    **dict.fromkeys(("ADD", "MUL"), _two_images),
    **dict.fromkeys(("MEAN", "SUM"), _mean),
    "RESIZE_BILINEAR": _resize,
    "DEPTH_TO_SPACE": lambda _graph, _operator: END,
}


def _why_no_beginning(graph: Graph, operator: Operator) -> str:
    """Why an operator is not the convolution that makes an RGB image channels first; empty if it is."""
    if operator.name != "CONV_2D" or not operator.constants:
        return "only a 3x3 convolution of 3 channels makes an image channels first"
    options = operator.options
    reasons = [
        (_filter_size(graph, operator) != (3, 3), "the first convolution must be 3x3"),
        ((options.strideH, options.strideW) != (2, 2), f"its stride is {options.strideH}, not 2"),
        ((options.dilationHFactor, options.dilationWFactor) != (1, 1), "it is dilated"),
        (_grouped(graph, operator), "it is in groups"),
        (
            graph.shape(operator.constants[0])[3] != 3,
            f"it takes {graph.shape(operator.constants[0])[3]} channels, not 3",
        ),
        (operator.padding != (1, 1, 1, 1), f"{_padding_said(operator.padding)}, not by 1 on all sides"),
    ]
    return "; ".join(why for wrong, why in reasons if wrong)


def _padding_said(padding: Sides | None) -> str:
    if padding is None:
        return "padded by TensorFlow's SAME with a stride"
    return "padded by {} above, {} below, {} left, {} right".format(*padding) if any(padding) else "not padded"


def _grouped(graph: Graph, operator: Operator) -> bool:
    return graph.shape(operator.inputs[0])[3] != graph.shape(operator.constants[0])[3]


def _filter_size(graph: Graph, operator: Operator) -> tuple[int, int]:
    _, height, width, _ = graph.shape(operator.constants[0])
    return height, width


def _positions(shape: tuple[int, ...]) -> int:
    return shape[1] * shape[2] if len(shape) == 4 else 1


def _weights_and_zeros(graph: Graph, operator: Operator) -> tuple[int, int]:
    filters = graph.value(operator.constants[0])
    return filters.size, int(filters.size - np.count_nonzero(filters))
