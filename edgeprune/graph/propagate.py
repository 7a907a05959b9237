"""Label propagation: every value of a traced graph gets its labels, operator by operator.

The rules of the operators are in `rules/`; a rule reads the labels of the operands, couples or freezes atoms, and
returns the labels of the result (`flow.py`). An operator without a rule freezes everything it touches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from torch import Tensor, fx, nn

from edgeprune.graph.flow import Flow, Slots, each, rule_for
from edgeprune.graph.labels import Labels
from edgeprune.graph.record import Trace
from edgeprune.graph.rules import attention, compute, elementwise, picking, recurrent, shape, transposed  # noqa: F401
from edgeprune.graph.zero_preserving import stays_zero


def propagate(trace: Trace, module: nn.Module) -> Flow:
    """Give every value of a recorded graph its labels.

    Args:
        trace: `module`, recorded.
        module: asked for tensors that share memory.
    """
    flow = Flow(trace, module)
    for node in trace.graph.nodes:
        if node.op == "placeholder":
            flow.values[node] = _placeholder(flow, node)
            flow.zero[node] = node in flow.parameters
        elif node.op == "call_function":
            apply = rule_for(node)
            flow.values[node] = apply(flow, node) if apply else flow.opaque(node, "no rule for this operator")
            flow.zero[node] = stays_zero(node, flow)
        elif node.op == "output":
            for operand in node.all_input_nodes:
                for labels in each(flow.values[operand]):
                    flow.atoms.freeze_all(labels, "the model's output")
        else:
            flow.values[node] = ()
    _freeze_shared(flow, module)
    return flow


def _placeholder(flow: Flow, node: fx.Node) -> Labels:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return ()
    name = flow.trace.parameters.get(node)
    if name is None:
        what = "the model's input" if node in flow.trace.inputs else f"the constant {node.name}"
        labels = flow.fresh_labels(value.shape)
        # Height, width and batch of the input carry no channels; a constant may hold them in any dimension.
        if node in flow.trace.inputs:
            labels = tuple(label if dim == 1 else None for dim, label in enumerate(labels))
        flow.atoms.freeze_all(labels, what)
        return labels
    labels = flow.fresh_labels(value.shape)
    flow.parameters[node] = name
    for dim, label in enumerate(labels):
        if label is not None:
            flow.slots[name, dim] = Slots(name, dim, label)
    return labels


def _freeze_shared(flow: Flow, module: nn.Module) -> None:
    """Freeze tensors that several modules hold: cutting one would part them. (One module in several places is fine.)"""
    storages = Counter(t.untyped_storage().data_ptr() for part in module.modules() for t in _tensors(part))
    for node, name in flow.parameters.items():
        path, _, last = name.rpartition(".")
        where = getattr(module.get_submodule(path), last).untyped_storage().data_ptr()
        if where != 0 and storages[where] > 1:
            flow.atoms.freeze_all(flow.labels(node), f"{name} shares its memory with another parameter")


def _tensors(part: nn.Module) -> Iterable[Tensor]:
    yield from part.parameters(recurse=False)
    yield from part.buffers(recurse=False)
