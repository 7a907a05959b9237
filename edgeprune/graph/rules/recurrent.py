"""Rules for recurrent layers."""

from __future__ import annotations

import numpy as np
from torch import Tensor, fx

from edgeprune.graph.flow import Flow, arguments, rule
from edgeprune.graph.labels import Indices, Value
from edgeprune.graph.trace import describe, operator_name

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}  # rows of a weight for one hidden unit


@rule(*GATES)
def recurrent(flow: Flow, node: fx.Node) -> Value:
    """Per layer and direction: weight_ih (gates * H, I), weight_hh (gates * H, H) and two biases, rows by gate.

    A hidden unit takes its row of every gate along, and its column of weight_hh. These modules know one hidden size,
    so unit j of every layer and direction goes together. A masked unit that starts at zero is zero at every step: its
    candidate is tanh(0) or relu(0).
    """
    args, gates = arguments(node), GATES[operator_name(node)]
    parameters = args.get("params")
    directions = 2 if args.get("bidirectional") else 1
    each = 4 if args.get("has_biases") else 2
    if (
        not isinstance(parameters, list | tuple)
        or len(parameters) != each * directions * args["num_layers"]
        or any(parameter not in flow.parameters for parameter in parameters)
    ):
        return flow.opaque(node, "no rule for this form of the operator")
    labels = flow.labels(args["input"])
    inner, first = labels[-1], None
    for begin in range(0, len(parameters), each * directions):
        outs: list[Indices] = []
        for start in range(begin, begin + each * directions, each):
            weight_ih, weight_hh, *biases = parameters[start : start + each]
            rows, columns = flow.labels(weight_ih)
            assert rows is not None
            flow.couple(inner, columns, node)
            hidden = rows.reshape(gates, -1)[0]
            first = hidden if first is None else first
            for matrix in (weight_ih, weight_hh, *biases):
                stacked = flow.labels(matrix)[0]
                assert stacked is not None
                flow.atoms.couple(np.tile(first, gates), stacked)
            flow.couple(hidden, flow.labels(weight_hh)[1], node)
            flow.slots[flow.parameters[weight_ih], 0].producer = True
            for matrix in (weight_ih, weight_hh):
                if (slots := flow.slots.get((flow.parameters[matrix], 1))) is not None:
                    slots.consumed = True
            outs.append(hidden)
        inner = np.concatenate(outs)
    flow.atoms.freeze_all(labels[:-1], f"channels lie in the steps of {describe(node)}")
    assert first is not None
    _start(flow, node, first)
    states = [(*(None,) * (part.ndim - 1), first) for part in node.meta["val"][1:]]
    return [(*(None,) * (len(labels) - 1), inner), *states]


def _start(flow: Flow, node: fx.Node, hidden: Indices) -> None:
    """The states that it starts from, (layers * directions, batch, H): their units go with its own."""
    given = arguments(node)["hx"]
    for state in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(state.meta.get("val"), Tensor):
            continue
        *others, own = flow.labels(state)
        flow.atoms.freeze_all(others, f"channels lie in the steps of {describe(node)}")
        if own is not None:
            flow.atoms.couple(hidden, own)
