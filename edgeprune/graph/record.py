"""Recording the ATen operators that a module carries out, without carrying them out.

What is recorded is what torch.export's graph says: the operators before autograd takes the composite ones apart, with
their shapes, the modules and the lines of code that they belong to. torch.export makes a program of it that can run,
which takes several times as long; the analysis of dimensions asks for the graph alone. The tensors are meta tensors:
shapes without values, so that code which asks for a value (`if x.max() > 1`) cannot be followed, and says so.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils import _pytree as pytree

from edgeprune.graph.sharing import copy_module
from edgeprune.graph.trace import FRAMES, STACK, TRACE_ERRORS, Frame, check_takes, untraceable
from edgeprune.models.inputs import given_to

_TORCH = f"{Path(torch.__file__).parent}/"


@dataclass(frozen=True)
class Trace:
    """The operators of a module in the order in which they ran.

    `graph` has a placeholder for each parameter, buffer and constant that is read, and for each input. A node's
    `meta["val"]` is what it answers (meta tensors).
    """

    graph: fx.Graph
    parameters: Mapping[fx.Node, str]  # placeholder -> its name in the state dict
    inputs: frozenset[fx.Node]
    fake: bool = False  # whether the code was followed with fake tensors


def record(module: nn.Module, example: Tensor) -> Trace:
    """Record what a module does in eval mode; the module is unchanged.

    Args:
        module: takes one tensor; one of several inputs (see `models/inputs.py`) is followed with them one by one.
        example: an input, shape (batch, ...); only its shape and dtype count.

    Raises:
        ModelError: its `forward` takes something else, or its code cannot be followed without values (names the line).
    """
    given = given_to(module, example)
    check_takes(module, given)
    try:
        return follow(module, example)
    except TRACE_ERRORS as error:
        raise untraceable(error, given) from error


def follow(module: nn.Module, example: Tensor) -> Trace:
    """`record`, with what the model's code itself raises (`TRACE_ERRORS`).

    Code that asks for the device sees "meta"; what does not run there is followed with fake tensors, which say that
    they are where the model is, and take twice the time.
    """
    try:
        return _followed(module, example, None)
    except TRACE_ERRORS:
        return _followed(module, example, FakeTensorMode())


def follow_as(trace: Trace, module: nn.Module, example: Tensor) -> Trace:
    """`follow`, of code that is known from a trace of it: with the kind of tensors that it took then."""
    return _followed(module, example, FakeTensorMode() if trace.fake else None)


def _followed(module: nn.Module, example: Tensor, fake: FakeTensorMode | None) -> Trace:
    recorder = _Recorder(fake)
    memo: dict[int, Any] = {id(t): recorder.ghost_of(t) for t in (*module.parameters(), *module.buffers())}
    ghost = copy_module(module, memo).eval()
    parameters = {
        recorder.placeholder(name, tensor): name for name, tensor in (*ghost.named_parameters(), *ghost.named_buffers())
    }
    given = [recorder.ghost_of(tensor) for tensor in given_to(module, example)]
    inputs = frozenset(recorder.placeholder("x", x) for x in given)
    with ExitStack() as stack:
        for mode in (torch.no_grad(), recorder.following(ghost), fake, enable_python_dispatcher(), recorder):
            if mode is not None:
                stack.enter_context(mode)
        output = ghost(*given)
    recorder.graph.output([recorder.node_of(tensor) for tensor in _tensors_of(output)])
    return Trace(recorder.graph, MappingProxyType(parameters), inputs, fake is not None)


def _tensors_of(output: object) -> list[Tensor]:
    """What a model answers; in something that only its own code can open, nothing would be found.

    Raises:
        TypeError: there is no tensor, or something else than tensors and constants.
    """
    leaves = pytree.tree_leaves(output)
    strange = next((leaf for leaf in leaves if not isinstance(leaf, Tensor | int | float | str | None)), None)
    if strange is not None:
        raise TypeError(f"the model answers {type(strange).__name__}: let it answer tensors, tuples, lists or dicts")
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors:
        raise TypeError("the model answers no tensor")
    return tensors


class _Recorder(ProxyTorchDispatchMode):
    """Sees each operator before autograd does, carries it out on meta tensors and notes it.

    torch lets nothing but its own modes stand there, so this is one of them by name: nothing of it is used.
    """

    def __init__(self, fake: FakeTensorMode | None) -> None:
        super().__init__(None, "fake", pre_dispatch=True)  # type: ignore[arg-type]  # a tracer it never asks
        self._fake = fake
        self.graph = fx.Graph()
        self._nodes: dict[int, fx.Node] = {}  # id of a tensor -> the node that made it
        self._views: dict[tuple[object, ...], fx.Node] = {}  # memory -> the node that made it last
        self._ghosts: dict[int, Tensor] = {}  # id of a tensor with values -> one without
        self._alive: list[Tensor] = []  # so that no id is given twice
        self._forms: dict[object, Any] = {}  # operator and arguments -> the form of the answer
        self._stack: list[tuple[str, str]] = []

    def placeholder(self, name: str, tensor: Tensor) -> fx.Node:
        node = self.graph.create_node("placeholder", name.replace(".", "_"))
        node.meta["val"] = tensor
        self._bind(tensor, node)
        return node

    @contextmanager
    def following(self, module: nn.Module) -> Iterator[None]:
        """Note which of its modules is at work."""
        handles = []
        for name, part in module.named_modules():
            entry = (name, f"{type(part).__module__}.{type(part).__qualname__}")
            handles.append(part.register_forward_pre_hook(self._entering(entry), prepend=True))
            handles.append(part.register_forward_hook(self._left, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node whose value a tensor is; one that nothing has made is a constant."""
        node = self._nodes.get(id(tensor)) or self._views.get(_memory(tensor))
        return node if node is not None else self.placeholder("constant", tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        node = self.graph.create_node(
            "call_function",
            func,
            _map(self.node_of, args),
            {key: _map(self.node_of, value) for key, value in kwargs.items()},
            name=func.overloadpacket.__name__,
        )
        given = args
        if self._fake is not None or any(operand.meta["val"].is_meta for operand in node.all_input_nodes):
            args, kwargs = _map(self.ghost_of, args), {key: _map(self.ghost_of, v) for key, v in kwargs.items()}
        result = self._answer(func, args, kwargs)
        node.meta |= {"val": result, STACK: tuple(self._stack), FRAMES: _frames()}
        self._bind(result, node)
        for argument, before in zip(func._schema.arguments, given, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(before, Tensor):
                self._nodes[id(before)] = node  # a constant that was written to, of which a ghost was
        return result

    def _answer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operator answers. Blocks are alike: of one that has been carried out on tensors of the same form and
        that made a new tensor, or wrote to its first, the form is known. (Torch works it out in Python, which takes
        most of the time.) Fake tensors have a memory of their own."""
        if self._fake is not None:
            return func(*args, **kwargs)
        try:
            asked = func, _form(args), _form(kwargs)
            known = self._forms.get(asked)
        except TypeError:  # an argument that cannot be told from others
            return func(*args, **kwargs)
        if known is _FIRST:
            return args[0]
        if known is not None:
            kind, forms = known
            made = [torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in forms]
            return made[0] if kind is Tensor else kind(made)
        if func is torch.ops.aten.batch_norm.default and not args[5]:
            result = torch.empty_like(args[0])  # with the statistics it has: torch takes milliseconds to say so
        else:
            result = func(*args, **kwargs)
        if (args and result is args[0] and _form(args) == asked[1]) and func._schema.is_mutable:
            self._forms[asked] = _FIRST
        elif type(result) in (Tensor, tuple, list) and _is_new(result, args, kwargs):
            parts = [result] if type(result) is Tensor else result
            self._forms[asked] = type(result), [(tuple(p.shape), p.stride(), p.dtype) for p in parts]
        return result

    def _bind(self, result: Any, node: fx.Node) -> None:
        if isinstance(result, Tensor):
            self._nodes[id(result)] = self._views[_memory(result)] = node
            self._alive.append(result)
        elif isinstance(result, list | tuple):
            for number, part in enumerate(result):
                picked = self.graph.create_node("call_function", operator.getitem, (node, number))
                picked.meta |= {**node.meta, "val": part}
                self._bind(part, picked)

    def ghost_of(self, tensor: Tensor) -> Tensor:
        """A tensor without values: constants meet those that have none."""
        if tensor.is_meta or isinstance(tensor, FakeTensor):
            return tensor
        if id(tensor) not in self._ghosts:
            if self._fake is not None:
                ghost: Tensor = self._fake.from_tensor(tensor)
            else:
                ghost = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
                if isinstance(tensor, nn.Parameter):
                    ghost = nn.Parameter(ghost, tensor.requires_grad)
            self._ghosts[id(tensor)] = ghost
            self._alive.append(tensor)
        return self._ghosts[id(tensor)]

    def _entering(self, entry: tuple[str, str]) -> Callable[..., None]:
        return lambda *_: self._stack.append(entry)

    def _left(self, *_: object) -> None:
        self._stack.pop()


def _map(function: Callable[[Tensor], Any], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(function, item) for item in value)
    return value


_FIRST = "the first argument"


def _form(value: Any) -> Any:
    """An argument of an operator, and of a tensor what its answer's form may depend on.

    Raises:
        TypeError: it cannot be told from others.
    """
    if isinstance(value, Tensor):
        if type(value) not in (Tensor, nn.Parameter) or not _is_ordinary(value):
            raise TypeError
        return Tensor, value.shape, value.stride(), value.storage_offset(), value.dtype
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_form, value))
    if isinstance(value, dict):
        return tuple((key, _form(item)) for key, item in value.items())
    return type(value), value


def _is_ordinary(tensor: Tensor) -> bool:
    return tensor.is_meta and tensor.layout is torch.strided and not tensor.is_conj() and not tensor.is_neg()


def _is_new(result: Any, args: object, kwargs: object) -> bool:
    """Whether an answer is tensors with memory of their own each, and nothing but their form."""
    parts = [result] if isinstance(result, Tensor) else result
    if not all(type(part) is Tensor and _is_ordinary(part) for part in parts):
        return False
    if any(part.storage_offset() or part.requires_grad for part in parts):
        return False
    given = (leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
    own = {part.untyped_storage()._cdata for part in parts}
    return len(own) == len(parts) and own.isdisjoint(leaf.untyped_storage()._cdata for leaf in given)


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """What tells a tensor whose Python object torch has made anew (of `torch.arange`, say) from others."""
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _frames() -> tuple[Frame, ...]:
    """The places outside torch that are at work within the model, outermost first."""
    found: list[Frame] = []
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != __file__:
        file = frame.f_code.co_filename
        if not file.startswith(_TORCH):
            found.append((file, frame.f_lineno, frame.f_code.co_firstlineno))
        if frame.f_back is None:
            break
        frame = frame.f_back
    return tuple(reversed(found))
