"""Rules for products of activations: attention in its many forms."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx

from edgeprune.graph.flow import Flow, arguments, rule
from edgeprune.graph.labels import Label, Labels, Value
from edgeprune.graph.rules.elementwise import broadcast
from edgeprune.graph.trace import describe, shape_of


@rule("matmul", "bmm", "mm")
def matmul(flow: Flow, node: fx.Node) -> Value:
    """(..., n, k) @ (..., k, m): what is summed over goes together, as do the dimensions in front; n and m pass."""
    left, right = node.all_input_nodes if len(node.all_input_nodes) == 2 else (node.all_input_nodes[0],) * 2
    if min(len(shape_of(left)), len(shape_of(right))) < 2:
        return flow.opaque(node, "no rule for this form of the operator")
    return _product(flow, node, left, right)


def _product(flow: Flow, node: fx.Node, left: fx.Node, right: fx.Node) -> Labels:
    a, b = flow.labels(left), flow.labels(right)
    flow.sum_over((left, a[-1]), (right, b[-2]), node)
    flow.atoms.name(a[-1], "qk")
    flow.atoms.name(b[-1], "v")
    flow.produces(left, a[-2])
    flow.produces(right, b[-1])
    sides = [(shape_of(left)[:-2], a[:-2]), (shape_of(right)[:-2], b[:-2])]
    front = broadcast(flow, node, sides, max(len(a), len(b)) - 2)
    for label in front:
        flow.atoms.name(label, "heads")
    return (*front, a[-2], b[-1])


@rule("addmm", "baddbmm")
def added_product(flow: Flow, node: fx.Node) -> Value:
    """beta * self + alpha * (left @ right): a product, and an addition with broadcasting."""
    args = arguments(node)
    left, right = (args[name] for name in (("mat1", "mat2") if "mat1" in args else ("batch1", "batch2")))
    product = _product(flow, node, left, right)
    added = args["self"]
    return broadcast(flow, node, [(shape_of(node), product), (shape_of(added), flow.labels(added))], len(product))


@rule("scaled_dot_product_attention")
def attention(flow: Flow, node: fx.Node) -> Value:
    """softmax(q k^T * scale + mask) v, with q (..., n, d), k (..., m, d), v (..., m, e), mask (..., n, m).

    Without an explicit scale it is d^-0.5: then d cannot change without changing what is computed.
    """
    args = arguments(node)
    if args.get("enable_gqa"):
        return flow.opaque(node, "no rule for grouped queries")
    parts = [args["query"], args["key"], args["value"]]
    q, k, v = (flow.labels(part) for part in parts)
    flow.sum_over((parts[0], q[-1]), (parts[1], k[-1]), node)
    flow.atoms.name(q[-1], "qk")
    flow.atoms.name(v[-1], "v")
    flow.atoms.freeze_all((q[-2], k[-2], v[-2]), f"channels lie among the tokens of {describe(node)}")
    if args.get("scale") is None:
        flow.atoms.freeze_all((q[-1], k[-1]), f"the scale follows the number of dimensions: {describe(node)}")
    sides = [(shape_of(part)[:-2], labels[:-2]) for part, labels in zip(parts, (q, k, v), strict=True)]
    mask = args.get("attn_mask")
    if isinstance(mask, fx.Node) and isinstance(mask.meta.get("val"), Tensor):
        flow.atoms.freeze_all(flow.labels(mask)[-2:], f"channels lie among the tokens of {describe(node)}")
        sides.append((shape_of(mask)[:-2], flow.labels(mask)[:-2]))
    front = broadcast(flow, node, sides, max(len(labels) for _, labels in sides))
    for label in front:
        flow.atoms.name(label, "heads")
    return (*front, None, v[-1])


@rule("einsum")
def einsum(flow: Flow, node: fx.Node) -> Value:
    """Letters name dimensions: those that meet are coupled, those that are summed over must be zero when masked."""
    args = arguments(node)
    operands = list(args["tensors"])
    sides = str(args["equation"]).replace(" ", "").split("->")
    inputs = sides[0].split(",")
    if len(sides) != 2 or "." in sides[0] or any(len(set(letters)) != len(letters) for letters in inputs):
        return flow.opaque(node, "no rule for this form of the operator")
    seen: dict[str, tuple[fx.Node, Label]] = {}
    summed: set[str] = set()
    for operand, letters in zip(operands, inputs, strict=True):
        for letter, label in zip(letters, flow.labels(operand), strict=True):
            if letter not in seen:
                seen[letter] = (operand, label)
            elif letter in sides[1]:
                flow.couple(seen[letter][1], label, node)
            else:
                flow.sum_over(seen[letter], (operand, label), node)
                flow.atoms.name(label, "qk")
                summed.add(letter)
    _produced(flow, operands, inputs, sides[1])
    for letter, (operand, label) in seen.items():
        if letter in sides[1] or letter in summed or label is None:
            continue
        flow.mixed.append((label, "summed"))
        if not flow.zero.get(operand):
            flow.atoms.freeze_all((label,), f"all channels are summed by {describe(node)}")
    if len(inputs) == 2:
        for letter in sides[1]:
            everywhere = letter in inputs[0] and letter in inputs[1]
            flow.atoms.name(seen[letter][1], "heads" if everywhere else "v" if letter in inputs[1] else "qk")
    return tuple(seen[letter][1] for letter in sides[1])


def _produced(flow: Flow, operands: Sequence[fx.Node], inputs: Sequence[str], output: str) -> None:
    for operand, letters in zip(operands, inputs, strict=True):
        for letter, label in zip(letters, flow.labels(operand), strict=True):
            if letter in output:
                flow.produces(operand, label)
