"""What is counted of a model beside the layers that are timed: every parameter, and every other matrix product.

Parameters are those of the model with batch norms folded: such a norm counts nothing, and the layer before it has a
bias. One that several modules hold counts once. Operators that are known to multiply matrices, or that nobody knows,
and that are not counted are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.graph.flow import Flow, arguments
from edgeprune.graph.labels import Label
from edgeprune.graph.layers import LabelledLayer, images_of, node_name
from edgeprune.graph.operations import Kind, OpSignature
from edgeprune.graph.rules.recurrent import GATES
from edgeprune.graph.trace import describe, operator_name, shape_of
from edgeprune.space.groups import Grouping
from edgeprune.space.units import Branch, Layer, Structure, Width

Dim = tuple[Label, int]  # the label of a dimension, and its size
_TIMED = ("conv2d",)  # by `find_layers`, of batches
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_PRODUCTS = ("matmul", "bmm", "mm", "addmm", "baddbmm")
_CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
_NOT_COUNTED = ("cdist", "chain_matmul", "conv_tbc", "mv")
_UNUSED = "αβγδεζηθικλμ"  # letters that no equation of torch has
_NO_PRODUCTS = ("prims", "profiler")


def counted(structure: Structure, *, parameters: bool) -> Structure:
    """The structure with those layers that a target of parameters, or of multiply-accumulates, counts."""
    layers = structure.weights if parameters else (*structure.layers, *structure.products)
    names = {layer.name for layer in layers}

    def inside(branch: Branch) -> Branch:
        return replace(branch, layers=tuple(n for n in (*branch.layers, *branch.counted) if n in names))

    return replace(structure, layers=layers, branches=tuple(map(inside, structure.branches)))


def find_weights(flow: Flow, module: nn.Module, grouping: Grouping) -> tuple[Layer, ...]:
    """One entry for each parameter, and one for each bias that folding a batch norm brings."""
    folded = _folded_norms(flow, module)
    known = {name: node for node, name in flow.parameters.items()}
    found = []
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[0] in folded:
            continue
        node = known.get(name)
        labels = flow.labels(node) if node is not None else (None,) * parameter.ndim
        found.append(_layer("weights", name, grouping, list(zip(labels, parameter.shape, strict=True))))
    for norm, (label, size) in folded.items():
        if label is not None or size:
            found.append(_layer("weights", f"{norm}.folded", grouping, [(label, size)]))
    return tuple(found)


def _folded_norms(flow: Flow, module: nn.Module) -> dict[str, Dim]:
    """The batch norms that merging folds -> the bias that the layer before gets, (None, 0) where it has one."""
    found: dict[str, Dim] = {}
    uses: dict[str, int] = {}
    for node in flow.trace.graph.nodes:
        if node.op == "call_function" and operator_name(node) == "batch_norm":
            args = arguments(node)
            name = flow.parameters.get(args["running_mean"])
            if name is None:
                continue
            path, source = name.rpartition(".")[0], args["input"]
            uses[path] = uses.get(path, 0) + 1
            if _folds(flow, module, source, module.get_submodule(path)):
                biased = arguments(source)["bias"] is not None
                found[path] = (None, 0) if biased else (flow.labels(node)[1], shape_of(node)[1])
    return {path: bias for path, bias in found.items() if uses[path] == 1}


def _folds(flow: Flow, module: nn.Module, source: fx.Node, norm: nn.Module) -> bool:
    if operator_name(source) not in (*_CONVOLUTIONS, *_TRANSPOSED, "linear") or len(source.users) > 1:
        return False
    weight = flow.parameters.get(arguments(source)["weight"])
    if weight is None or not isinstance(norm, _BatchNorm) or weight.rpartition(".")[2] != "weight":
        return False
    plain = isinstance(module.get_submodule(weight.rpartition(".")[0]), nn.modules.conv._ConvNd | nn.Linear)
    reads = len(arguments(source)["weight"].users)  # by whatever
    return plain and reads == 1 and (operator_name(source) != "linear" or len(shape_of(source)) == 2)


def find_products(flow: Flow, grouping: Grouping, timed: Sequence[LabelledLayer]) -> tuple[Layer, ...]:
    """The matrix products that no timed layer is, in the order of the graph, each under a name of its own."""
    taken = {layer.name for layer in timed}
    found: list[Layer] = []
    for node in _live(flow):
        for number, dims in enumerate(_dimensions(flow, node)):
            name = f"{node_name(node)}:{number}"
            assert name not in taken
            found.append(_layer("product", name, grouping, dims))
    return tuple(found)


def find_uncounted(flow: Flow) -> tuple[str, ...]:
    """Operators that may multiply, and count nothing: they are named."""
    found: dict[str, None] = {}
    for node in _live(flow):
        space = node.target.namespace if hasattr(node.target, "namespace") else "aten"
        name = operator_name(node)
        unknown = space not in ("aten", *_NO_PRODUCTS) and name != "deform_conv2d"
        if unknown or name in _NOT_COUNTED or (name.startswith(("fft_", "linalg_")) and name != "linalg_vector_norm"):
            found[describe(node)] = None
    return tuple(found)


def _live(flow: Flow) -> Iterator[fx.Node]:
    """What is computed from the input: what is computed from parameters alone is done once, at export."""
    live: set[fx.Node] = set(flow.trace.inputs)
    for node in flow.trace.graph.nodes:
        if node.op == "call_function" and live.intersection(node.all_input_nodes):
            live.add(node)
            yield node


def _dims(flow: Flow, node: fx.Node) -> list[Dim]:
    return list(zip(flow.labels(node), shape_of(node), strict=True))


def _dimensions(flow: Flow, node: fx.Node) -> list[list[Dim]]:
    """For each product that an operator does on one image, the dimensions whose sizes multiply to its number."""
    name = operator_name(node)
    if name in GATES:
        return _steps(flow, node)
    if name in _CELLS:
        return [_dims(flow, arguments(node)[matrix]) for matrix in ("w_ih", "w_hh")]
    if not isinstance(node.meta.get("val"), Tensor) or not hasattr(node.target, "_schema"):
        return []
    args = arguments(node)
    found: list[list[Dim]] = []
    if name in (*_CONVOLUTIONS, "deform_conv2d", "bilinear"):
        is_timed = name in _TIMED and len(shape_of(node)) == 4
        found = [[*_mine(flow, node), *_dims(flow, args["weight"])[1:]]] if not is_timed else []
    elif name in _TRANSPOSED:
        found = [[*_mine(flow, args["input"]), *_dims(flow, args["weight"])[1:]]]
    elif name in _PRODUCTS:
        left = args["self"] if name in ("matmul", "bmm", "mm") else args.get("mat1", args.get("batch1"))
        assert isinstance(left, fx.Node)
        found = [[*_mine(flow, node), _dims(flow, left)[-1]]]
    elif name == "scaled_dot_product_attention":
        q, k, v = (_dims(flow, args[part]) for part in ("query", "key", "value"))
        front = _mine(flow, node)[:-2]
        found = [[*front, q[-2], k[-2], q[-1]], [*front, q[-2], k[-2], v[-1]]]
    elif name == "einsum":
        found = _contractions(flow, args)
    return found


def _mine(flow: Flow, node: fx.Node) -> list[Dim]:
    """The dimensions of a value for one image: the first may hold more than the batch."""
    first, *others = _dims(flow, node) or [(None, 1)]
    images = images_of(flow)
    return others if first[1] == images else [first if images == 1 else (None, max(1, first[1] // images)), *others]


def _contractions(flow: Flow, args: dict[str, object]) -> list[list[Dim]]:
    """Operands are multiplied from left to right; a product has all letters of both."""
    operands = args["tensors"]
    assert isinstance(operands, list | tuple)
    equation = str(args["equation"]).replace(" ", "")
    inputs, _, output = equation.partition("->")
    sides = inputs.split(",")
    sizes: dict[str, Dim] = {}
    if "." in equation:
        rank = max(len(shape_of(o)) - len(side.replace("...", "")) for o, side in zip(operands, sides, strict=True))
        sides, output = _spelled(operands, sides, rank), output.replace("...", _UNUSED[:rank])
    for operand, letters in zip(operands, sides, strict=True):
        for letter, dim in zip(letters, _dims(flow, operand), strict=True):
            sizes[letter] = dim if sizes.get(letter, (None, 1))[1] == 1 else sizes[letter]
    found, left, batch = [], set(sides[0]), output[:1] if len(operands[0].meta["val"]) == 1 else ""
    for number, side in enumerate(sides[1:], start=1):
        together = left | set(side)
        left = together & set(output + "".join(sides[number + 1 :]))
        if left != together:  # else nothing is summed: an elementwise product
            found.append([sizes[letter] for letter in sorted(together) if letter != batch])
    return found


def _spelled(operands: Sequence[fx.Node], sides: Sequence[str], rank: int) -> list[str]:
    """The sides of an equation with letters in the place of `...`, the last of them for the last dimensions."""
    found = []
    for operand, side in zip(operands, sides, strict=True):
        covered = len(shape_of(operand)) - len(side.replace("...", ""))
        found.append(side.replace("...", _UNUSED[rank - covered : rank]))
    return found


def _steps(flow: Flow, node: fx.Node) -> list[list[Dim]]:
    """Every matrix of a recurrent layer is read at every step."""
    args = arguments(node)
    shape = shape_of(args["input"])
    steps: Dim = (None, math.prod(shape) // shape[-1] // images_of(flow))
    matrices = [p for p in args.get("params") or () if len(shape_of(p)) == 2]
    return [[steps, *_dims(flow, matrix)] for matrix in matrices]


def _layer(kind: Kind, name: str, grouping: Grouping, dims: Sequence[Dim]) -> Layer:
    width = Width(1)
    for label, size in dims:
        width = _times(width, grouping.width(label, size))
    operation = OpSignature(kind=kind, in_channels=math.prod(size for _, size in dims), out_channels=1)
    return Layer(name, operation, width, Width(1))


def _times(left: Width, right: Width) -> Width:
    terms: dict[tuple[str, ...], int] = {}
    for names, count in (((), left.fixed), *left.terms):
        for others, times in (((), right.fixed), *right.terms):
            both = tuple(sorted((*names, *others)))
            terms[both] = terms.get(both, 0) + count * times
    fixed = terms.pop((), 0)
    return Width(fixed, tuple((names, count) for names, count in terms.items() if count))
