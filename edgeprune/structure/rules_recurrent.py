"""Rules for recurrent layers."""

from __future__ import annotations

import numpy as np
from torch import fx

from edgeprune.structure.graph import describe
from edgeprune.structure.labels import Value
from edgeprune.structure.propagation import Flow, arguments, rule
from edgeprune.structure.units import Indices


@rule("lstm")
def lstm(flow: Flow, node: fx.Node) -> Value:
    """Per layer and direction: weight_ih (4H, I), weight_hh (4H, H) and two biases (4H), rows by gate.

    A hidden unit takes its row of every gate along, and its column of weight_hh. `nn.LSTM` knows one hidden size, so
    unit j of every layer and direction goes together. A masked unit is zero at every step: its candidate is tanh(0).
    """
    args = arguments(node)
    parameters = args.get("params")
    directions = 2 if args.get("bidirectional") else 1
    each = 4 if args.get("has_biases") else 2
    if (
        not isinstance(parameters, list | tuple)
        or len(parameters) != each * directions * args["num_layers"]
        or any(parameter not in flow.parameters for parameter in parameters)
        or any(label is not None for state in args["hx"] for label in flow.labels(state))
        or any(user.users for user in node.users if user.args[1] != 0)
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
            hidden = rows.reshape(4, -1)[0]
            first = hidden if first is None else first
            for matrix in (weight_ih, weight_hh, *biases):
                gates = flow.labels(matrix)[0]
                assert gates is not None
                flow.atoms.couple(np.tile(first, 4), gates)
            flow.couple(hidden, flow.labels(weight_hh)[1], node)
            flow.slots[flow.parameters[weight_ih], 0].producer = True
            for matrix in (weight_ih, weight_hh):
                flow.slots[flow.parameters[matrix], 1].consumed = True
            outs.append(hidden)
        inner = np.concatenate(outs)
    flow.atoms.freeze_all(labels[:-1], f"channels lie in the steps of {describe(node)}")
    return [(None, None, inner), (None, None, None), (None, None, None)]
