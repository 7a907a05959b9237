"""The labels of every value of a traced graph, and the rules by which operators pass them on.

Each operator has a rule (`rule_for`), registered with `@rule("name", ...)` in `rules/`. A rule reads the labels of the
operands, couples or freezes atoms, and returns the labels of the result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from edgeprune.graph.labels import AtomTable, Indices, Label, Labels, Mixed, Value
from edgeprune.graph.record import Trace
from edgeprune.graph.trace import describe, module_path, operator_name, read_nodes

Rule = Callable[["Flow", fx.Node], Value]
_RULES: dict[str, Rule] = {}
_TURNED = ("t", "transpose", "permute", "numpy_T", "mT", "swapaxes", "swapdims", "movedim")


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators by bare name ("add" also stands for "add_" and all overloads), for those of
    others with their namespace ("torchvision::deform_conv2d")."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in _RULES:
                raise AssertionError(f"two rules for {name}")
            _RULES[name] = function
        return function

    return register


def rule_for(node: fx.Node) -> Rule | None:
    """The rule of a node's operator, if there is one."""
    if node.target is operator.getitem:
        return _getitem
    if isinstance(node.target, torch._ops.OpOverload):
        own = node.target.namespace == "aten"
        return _RULES.get(operator_name(node) if own else node.target._schema.name)
    return None


@dataclass
class Slots:
    """One dimension of one parameter or buffer: atom `atoms[i]` is index i."""

    name: str
    dim: int
    atoms: Indices
    consumed: bool = False  # read by a contraction (conv and linear in channels); else it computes the unit
    producer: bool = False  # out channels of a convolution or linear layer
    statistics: bool = False  # no parameter: what a norm of that name runs over


@dataclass
class Flow:
    """A traced model with the labels of all its values."""

    trace: Trace
    module: nn.Module
    atoms: AtomTable = field(default_factory=AtomTable)
    values: dict[fx.Node, Value] = field(default_factory=dict)
    slots: dict[tuple[str, int], Slots] = field(default_factory=dict)
    parameters: dict[fx.Node, str] = field(default_factory=dict)  # placeholder -> state dict name
    norms: dict[str, Slots] = field(default_factory=dict)  # module -> the channels that its statistics run over
    standardized: list[str] = field(default_factory=list)  # convolutions that compute their weight from it
    mixed: list[tuple[Indices, Mixed]] = field(default_factory=list)  # labels summed over without weights
    zero: dict[fx.Node, bool] = field(default_factory=dict)  # whether masked channels are zero in a value

    @cached_property
    def read(self) -> frozenset[fx.Node]:
        """The nodes that the model's answer may depend on."""
        return read_nodes(self.trace.graph)

    def labels(self, node: fx.Node) -> Labels:
        """The labels of a tensor value."""
        value = self.values[node]
        return value if isinstance(value, tuple) else ()

    def couple(self, left: Label, right: Label, node: fx.Node) -> None:
        """Couple two dimensions index by index; channels meeting a dimension without labels are frozen."""
        if left is not None and right is not None:
            self.atoms.couple(left, right)
        elif left is not None or right is not None:
            reason = f"tied to a dimension that carries no channels by {describe(node)}"
            self.atoms.freeze_all((left, right), reason)

    def sum_over(self, left: tuple[fx.Node, Label], right: tuple[fx.Node, Label], node: fx.Node) -> None:
        """Couple two dimensions that are multiplied and summed over: masked channels must be zero in one of them."""
        self.couple(left[1], right[1], node)
        labels = [label for _, label in (left, right) if label is not None]
        weights = {self._weight(node) for node, _ in (left, right)} - {None}
        for slots in self.slots.values():  # a parameter that is multiplied with the channels reads them
            if slots.name in weights and any(np.array_equal(slots.atoms, label) for label in labels):
                slots.consumed = True
        if not weights:
            self.mixed += [(label, "contracted") for label in labels]
        if not (self.zero.get(left[0]) or self.zero.get(right[0])):
            self.atoms.freeze_all(
                (left[1], right[1]), f"a channel that is gone would still count in the sum of {describe(node)}"
            )

    def produces(self, node: fx.Node, label: Label) -> None:
        """Note that a product's channels come from a parameter, as a layer's come from its weight."""
        name = self._weight(node)
        for slots in self.slots.values():
            if slots.name == name and label is not None and np.array_equal(slots.atoms, label):
                slots.producer = True

    def _weight(self, node: fx.Node) -> str | None:
        """The parameter that a value is, as it is or turned."""
        while node not in self.parameters and operator_name(node) in _TURNED:
            node = node.all_input_nodes[0]
        return self.parameters.get(node)

    def normalize(self, label: Indices, dim: int, node: fx.Node) -> None:
        """Note that a module takes statistics over a dimension: what goes there, goes out of them."""
        path = module_path(node)
        known = self.norms.setdefault(path, Slots(path, dim, label, statistics=True)).atoms
        if len(known) == len(label):
            self.atoms.couple(known, label)
        else:
            self.atoms.freeze_all((known, label), f"one norm runs over several widths: {describe(node)}")

    def opaque(self, node: fx.Node, why: str) -> Value:
        """Freeze everything a node reads; its result gets frozen labels of its own."""
        reason = f"{why}: {describe(node)}"
        carried = [labels for operand in node.all_input_nodes for labels in each(self.values.get(operand, ()))]
        for labels in carried:
            self.atoms.freeze_all(labels, reason)
        result = node.meta.get("val")
        if all(label is None for labels in carried for label in labels):
            return _unlabelled(result)
        if isinstance(result, Tensor):
            return self.frozen_labels(result.shape, reason)
        if isinstance(result, list | tuple):
            return [self.frozen_labels(v.shape if isinstance(v, Tensor) else (), reason) for v in result]
        return ()

    def frozen_labels(self, shape: Iterable[int], reason: str) -> Labels:
        """Fresh labels that are frozen."""
        labels = self.fresh_labels(shape)
        self.atoms.freeze_all(labels, reason)
        return labels

    def fresh_labels(self, shape: Iterable[int]) -> Labels:
        return tuple(self.atoms.fresh(int(size)) if size > 1 else None for size in shape)


def arguments(node: fx.Node) -> dict[str, Any]:
    """A node's arguments by the names of the operator's schema, defaults filled in."""
    assert isinstance(node.target, torch._ops.OpOverload)
    bound: dict[str, Any] = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            bound[argument.name] = node.args[position]
        else:
            bound[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return bound


def _getitem(flow: Flow, node: fx.Node) -> Value:
    source, index = node.args
    assert isinstance(source, fx.Node)
    value = flow.values[source]
    if isinstance(value, list) and isinstance(index, int):
        return value[index]
    return flow.opaque(node, "no rule for this operator")


def _unlabelled(result: Any) -> Value:
    """Labels of a result that no channels have gone into."""
    if isinstance(result, list | tuple):
        return [(None,) * part.ndim if isinstance(part, Tensor) else () for part in result]
    return (None,) * result.ndim if isinstance(result, Tensor) else ()


def each(value: Value) -> Iterable[Labels]:
    return value if isinstance(value, list) else (value,)
