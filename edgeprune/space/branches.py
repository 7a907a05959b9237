"""Residual branches: what stands between a skip and the addition that ends it can be removed as one.

    y = skip + branch(skip)   ->   y = skip

Found in the traced graph: an addition one of whose operands is reached from the other one alone. Removing a branch
empties its modules: the one whose output is added answers zeros, the others hand their input on. What is offered has
been tried: emptied, the model must compute what it computes with the branch's output set to zero. Gates, which
multiply, are found in the same way, and leave a constant (`gates.py`).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils.hooks import RemovableHandle

from edgeprune.errors import ModelError
from edgeprune.graph.flow import Flow
from edgeprune.graph.layers import LabelledLayer, node_name
from edgeprune.graph.trace import TRACE_ERRORS, module_path, operator_name, shape_of
from edgeprune.models.attention import EmptyAttention, PlainAttention
from edgeprune.space import gates
from edgeprune.space.gates import UNSET, ConstantGate
from edgeprune.space.trial import Forms, TrialImages, answers, idle, same_answers
from edgeprune.space.units import Branch, Structure, UnitGroup, is_inside

_MODULE = __name__
_SCALING = ("mul", "permute", "transpose", "view", "reshape", "contiguous", "clone", "dropout")


class Zeros(nn.Module):
    """Stands where a removed branch ended: answers zeros of its input's shape, whatever else it is called with."""

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        return torch.zeros_like(x)


class Through(nn.Module):
    """Stands for a module of a removed branch: hands its input on, whatever else it is called with."""

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        return x


def find_branches(
    flow: Flow,
    trial: nn.Module,
    images: TrialImages,
    layers: Sequence[LabelledLayer],
    groups: Sequence[UnitGroup],
    counted: Sequence[str] = (),
) -> tuple[Branch, ...]:
    """The residual branches and gates of a traced model that can be removed, in the order of the graph.

    Args:
        flow: the model, traced.
        trial: the model with weights that all count (`lively`); as before afterwards.
        images: what the branches are tried with.
        counted: names of what is counted beside the layers.
    """
    regions = list(_removable(flow))
    blocks = Counter((_common_parent(region.roots), region.gate) for region in regions)
    candidates = []
    for region in regions:
        roots, output, gate = region.roots, region.output, region.gate
        block = _common_parent(roots)
        branch = Branch(
            id=f"{block if block and blocks[block, gate] == 1 else output}:{'gate' if gate else 'branch'}",
            output=output,
            modules=tuple(root for root in roots if root != output),
            layers=tuple(layer.name for layer in layers if region.holds(layer.name)),
            groups=tuple(group.id for group in groups if _lives_inside(group, roots)),
            gate=gate,
            counted=tuple(name for name in counted if region.holds(name.partition(":")[0])),
        )
        if branch.layers and (not gate or _width(trial, branch) == region.channels):
            candidates.append(branch)
    working = [branch for apart in _apart(candidates) for branch in _working(trial, apart, images)]
    first = {branch.id: branch for branch in reversed(candidates) if branch in working}
    return tuple(branch for branch in candidates if branch is first.get(branch.id))


def _apart(branches: Iterable[Branch]) -> list[list[Branch]]:
    """Branches in sets that share no module: a trial of an outer branch would hide what is within."""
    sets: list[list[Branch]] = []
    for branch in branches:
        mine = (*branch.modules, branch.output)
        free = (
            apart
            for apart in sets
            if not any(
                is_inside(one, other) or is_inside(other, one)
                for taken in apart
                for other in (*taken.modules, taken.output)
                for one in mine
            )
        )
        home = next(free, None)
        if home is None:
            sets.append([branch])
        else:
            home.append(branch)
    return sets


def _working(trial: nn.Module, branches: list[Branch], images: TrialImages) -> list[Branch]:
    """Those branches without which the model computes what the masked one does.

    They are tried together; where that fails those of each kind of block, and where one of a kind fails alone, the
    others are not tried: what fails is the way the block is written.
    """
    if not branches or _works(trial, branches, images):
        return branches
    kinds: dict[tuple[object, ...], list[Branch]] = {}
    for branch in branches:
        kinds.setdefault(_kind(trial, branch), []).append(branch)
    if len(kinds) > 1:
        return [branch for alike in kinds.values() for branch in _working(trial, alike, images)]
    if len(branches) == 1 or not _works(trial, branches[:1], images):
        return []
    middle = -(-len(branches) // 2)
    return _working(trial, branches[:middle], images) + _working(trial, branches[middle:], images)


def _kind(trial: nn.Module, branch: Branch) -> tuple[object, ...]:
    """The class of the block, and the names of what goes with the branch in it."""
    names = (*branch.modules, branch.output)
    block = _common_parent(names)
    return type(trial.get_submodule(block)), *(name.removeprefix(block) for name in names)


@dataclass(frozen=True)
class _Region:
    """The modules of a residual branch or gate, the one whose output is added or multiplies, the channels of the
    product, and the operators of a gate that are in no module of its own: its mean, and the product."""

    roots: list[str]
    output: str
    gate: bool
    channels: int
    operators: frozenset[str]

    def holds(self, layer: str) -> bool:
        return layer in self.operators or _is_within(layer, self.roots)


def _removable(flow: Flow) -> Iterator[_Region]:
    owners = _owners(flow)
    for node in flow.trace.graph.nodes:
        for skip, end, gate in _joins(node):
            region = _region(flow, skip, end, node)
            roots = _roots(region, owners) if region else []
            output = _output(skip, end, region, roots)
            if output is not None:
                own = frozenset(node_name(one) for one in (*region, node)) if gate else frozenset[str]()
                yield _Region(roots, output, gate, shape_of(node)[1] if gate else 0, own)


def remove_branches(module: nn.Module, structure: Structure, removed: Iterable[str]) -> nn.Module:
    """A copy of a module without some branches; the module itself is unchanged.

    Raises:
        ModelError: the model has no such branch.
    """
    branches = {branch.id: branch for branch in structure.branches}
    pruned = copy.deepcopy(module)
    for name in removed:
        if name not in branches:
            known = ", ".join(list(branches)[:6]) or "none can be removed"
            raise ModelError(f"the model has no branch {name}", hint=f"branches: {known}")
        if branches[name].output in dict(pruned.named_modules()):  # else it went with a branch around it
            _empty(pruned, branches[name])
    return pruned


def silence_branches(module: nn.Module, structure: Structure, silent: Iterable[str]) -> list[RemovableHandle]:
    """Make the outputs of some branches zero until their handles are removed, those of gates what a constant starts
    from."""
    branches = {branch.id: branch for branch in structure.branches}
    handles = []
    for name in silent:
        value = UNSET if branches[name].gate else 0.0
        part = module.get_submodule(branches[name].output)
        fill: Any = _first_filled if isinstance(part, PlainAttention) else torch.full_like
        handles.append(part.register_forward_hook(lambda _, __, out, fill=fill, value=value: fill(out, value)))
    return handles


def _first_filled(answer: tuple[Tensor, Tensor | None], value: float) -> tuple[Tensor, Tensor | None]:
    return torch.full_like(answer[0], value), answer[1]


@contextmanager
def branches_masked(module: nn.Module, structure: Structure, masked: Iterable[str]) -> Iterator[None]:
    """Within this context some branches are silent: what the module computes without them."""
    handles = silence_branches(module, structure, masked)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def fold_removed(program: ExportedProgram) -> None:
    """Take the additions of removed branches' zeros and the products with folded gates' ones out of a traced program:
    runtimes would carry them out."""
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or len(node.all_input_nodes) != 2 or node.kwargs:
            continue
        is_nothing = {"add": _is_removed_branch, "mul": _is_folded_gate}.get(operator_name(node))
        if is_nothing is None:
            continue
        for nothing, other in (node.all_input_nodes, node.all_input_nodes[::-1]):
            if is_nothing(nothing) and shape_of(other) == shape_of(node):
                node.replace_all_uses_with(other)
                graph.erase_node(node)
                break
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _is_removed_branch(node: fx.Node) -> bool:
    """Whether a value is what a `Zeros` module answers, scaled or not (zeros in the user's own code are their own)."""
    if node.op != "call_function":
        return False
    if operator_name(node) in _SCALING:
        return any(_is_removed_branch(operand) for operand in node.all_input_nodes)
    return operator_name(node) == "zeros_like" and _owner(node).endswith(f"{_MODULE}.Zeros")


def _is_folded_gate(node: fx.Node) -> bool:
    """Whether a value is what a `Unity` module answers."""
    ones = node.op == "call_function" and operator_name(node) == "ones_like"
    return ones and _owner(node).endswith(f"{gates.__name__}.Unity")


def _owner(node: fx.Node) -> str:
    """The class of the module that computes a node."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][1]) if stack else ""


def _joins(node: fx.Node) -> Iterator[tuple[fx.Node, fx.Node, bool]]:
    """(skip, end of the branch, whether it is a gate) of an addition, both ways round, or of a product of an image and
    one factor for each of its channels."""
    if node.op != "call_function" or operator_name(node) not in ("add", "mul") or len(node.all_input_nodes) != 2:
        return
    left, right = node.all_input_nodes
    if not all(isinstance(n.meta.get("val"), Tensor) for n in (left, right)):
        return
    for skip, end in ((left, right), (right, left)):
        if shape_of(skip) != shape_of(node):
            continue
        if operator_name(node) == "add" and shape_of(end) == shape_of(node):
            yield skip, end, False
        image = len(shape_of(node)) == 4 and max(shape_of(node)[2:]) > 1
        if operator_name(node) == "mul" and image and shape_of(end) == (*shape_of(node)[:2], 1, 1):
            yield skip, end, True


def _region(flow: Flow, skip: fx.Node, end: fx.Node, addition: fx.Node) -> set[fx.Node]:
    """The nodes between a skip and the end of its branch; empty when something else leads in or out."""
    region: set[fx.Node] = set()
    stack, entered = [end], False
    while stack:
        node = stack.pop()
        if node is skip:
            entered = True
        elif node.op == "placeholder":
            if node not in flow.parameters:
                return set()
        elif node not in region:
            region.add(node)
            stack.extend(node.all_input_nodes)
    outside = {user for node in region for user in node.users} - region - {addition}
    leaks = not flow.read.isdisjoint(outside)
    return region if entered and not leaks else set()


def _output(skip: fx.Node, end: fx.Node, region: set[fx.Node], roots: Sequence[str]) -> str | None:
    """The root whose output is added, perhaps scaled and laid out anew (layer scale): zeros of it add nothing."""
    computed, waiting = {skip}, [skip]  # the region's nodes that are not of parameters alone
    while waiting:
        reached = [user for user in waiting.pop().users if user in region and user not in computed]
        computed.update(reached)
        waiting += reached
    node = end
    while True:
        root = next((root for root in roots if is_inside(module_path(node), root)), None)
        before = [operand for operand in node.all_input_nodes if operand in computed]
        if root is not None or len(before) != 1 or operator_name(node) not in _SCALING:
            return root
        node = before[0]


def _owners(flow: Flow) -> dict[str, set[fx.Node]]:
    """The nodes that each module (those inside it included) computes."""
    owners: dict[str, set[fx.Node]] = {}
    for node in flow.trace.graph.nodes:
        if node.op != "call_function" or node not in flow.read:
            continue
        path = module_path(node)
        while path:
            owners.setdefault(path, set()).add(node)
            path = path.rpartition(".")[0]
    return owners


def _roots(region: set[fx.Node], owners: dict[str, set[fx.Node]]) -> list[str]:
    """The largest modules that compute nothing outside the region."""
    inside = {path for path, nodes in owners.items() if nodes <= region}
    return sorted(path for path in inside if path.rpartition(".")[0] not in inside)


def _lives_inside(group: UnitGroup, roots: Sequence[str]) -> bool:
    return all(_is_within(member.name, roots) for member in (*group.produced, *group.consumed))


def _is_within(name: str, roots: Collection[str]) -> bool:
    """Whether a layer or tensor of that name is one of some modules, or inside of one."""
    path = name.partition("@")[0]  # NAME@1: the second use of a layer
    while path and path not in roots:
        path = path.rpartition(".")[0]
    return bool(path)


def _common_parent(roots: Sequence[str]) -> str:
    """ "layer1.0" for the parts of that block; a branch that is one module is its own."""
    if len(roots) == 1:
        return roots[0]
    common: list[str] = []
    for level in zip(*(root.split(".") for root in roots), strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)


def _works(trial: nn.Module, branches: Sequence[Branch], images: TrialImages) -> bool:
    return images.hold(lambda x: _works_with(trial, branches, x, images.forms))


def _works_with(trial: nn.Module, branches: Sequence[Branch], x: Tensor, forms: Forms) -> bool:
    """Whether the emptied model runs and computes what the masked one does; `trial` is as before afterwards.

    What leads nowhere but into a silent output need not be computed: the masked model's modules idle where one image
    is asked for (`forms` are of one).
    """
    names = [name for branch in branches for name in (*branch.modules, branch.output)]
    before = {name: trial.get_submodule(name) for name in names}
    silent = Structure((), (), (), tuple(branches))

    def reference(part: Tensor) -> list[Tensor]:
        known = forms if len(part) == 1 else {}
        with branches_masked(trial, silent, [branch.id for branch in branches]), idle(trial, names, known, part):
            return answers(trial, part)

    try:
        try:
            for branch in branches:
                _empty(trial, branch)
            given = answers(trial, x)
        finally:
            for name, part in before.items():
                trial.set_submodule(name, part)
        return same_answers(given, reference, x)
    except TRACE_ERRORS:
        return False


def _width(module: nn.Module, gate: Branch) -> int:
    """Channels that a gate answers: those of its last layer with weights; 0 where it has none.

    Its layers are named as modules, or as parameters where these are what is counted (`counting.counted`).
    """
    named = dict(module.named_parameters())
    names = (key for name in gate.layers[::-1] for key in (f"{name}.weight", name) if key in named)
    return next((len(named[key]) for key in names), 0)


def _empty(module: nn.Module, branch: Branch) -> None:
    instead: nn.Module = Zeros()
    if branch.gate:
        instead = ConstantGate(_width(module, branch), like=next(module.parameters()))
    for name in branch.modules:
        _replace(module, name, Through())
    _replace(module, branch.output, instead)


def _replace(module: nn.Module, name: str, instead: nn.Module) -> None:
    part = module.get_submodule(name)
    module.set_submodule(name, EmptyAttention(part, instead) if isinstance(part, PlainAttention) else instead)
