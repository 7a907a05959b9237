"""Tracing a model into torch.export's ATen graph, and telling where in the user's code a node comes from.

What is to run (an exported file) is traced with torch.export (`trace`); what is looked at alone is recorded
(`record.py`): the same operators, sooner.
"""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from edgeprune.errors import ModelError
from edgeprune.models.inputs import OneByOne, given_to, inputs_of
from edgeprune.models.modes import evaluating

# What user code and torch.export raise while a model is traced; anything else is a defect of ours.
TRACE_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
)

Frame = tuple[str, int, int]  # file, line, first line of the function
FRAMES = "edgeprune_frames"  # in a recorded node's meta: the places that made it, outermost first
STACK = "edgeprune_modules"  # in a recorded node's meta: (name, class) of the modules at work, outermost first

_TORCH = f"{Path(torch.__file__).parent}/"


def trace(module: nn.Module, example: Tensor) -> ExportedProgram:
    """Trace a module in eval mode; its modes, weights and buffers stay as they are.

    Args:
        module: takes one tensor; of one of several inputs (see `models/inputs.py`) the program takes them one by one.
        example: an input, shape (batch, ...), on the module's device and of its dtype.

    Raises:
        ModelError: its `forward` takes something else, or torch.export cannot trace it (names the line of the user's
            code).
    """
    given = given_to(module, example)
    check_takes(module, given)
    with evaluating(module):
        try:
            traced = OneByOne(module).eval() if inputs_of(module) else module
            return torch.export.export(traced, given, strict=False)
        except TRACE_ERRORS as error:
            raise untraceable(error, given) from error


def untraceable(error: BaseException, given: Sequence[Tensor]) -> ModelError:
    """What a model's own code, or torch, raised while the model was traced or recorded, as an error for its author."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    shapes = " and ".join(str(tuple(tensor.shape)) for tensor in given)
    return ModelError(
        f"the model cannot be traced: {lines[0]}",
        where=describe_error(error),
        hint=f"make the forward free of data-dependent Python control flow; it must accept an input of shape {shapes}",
    )


def check_takes(module: nn.Module, given: Sequence[Tensor]) -> None:
    """Raises ModelError where a module's forward cannot be called with a batch."""
    if inputs_of(module):
        return  # it was looked at when it was loaded
    try:
        inspect.signature(module.forward).bind(*given)
    except TypeError as error:
        raise ModelError(
            f"the model does not take one input: {error}",
            where=type(module).__name__,
            hint="say what it takes: inputs = { left = [3, 32, 32], right = [3, 32, 32] } in [model]",
        ) from error


def user_frames(error: BaseException) -> list[tuple[str, int]]:
    """(file, line) of the frames outside torch and edgeprune an error went through, innermost first."""
    here = f"{Path(__file__).parent}/"
    found: list[tuple[str, int]] = []
    current: BaseException | None = error
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)
        inner = [(f.filename, f.lineno) for f in frames if f.lineno is not None]
        found += [f for f in reversed(inner) if not f[0].startswith((_TORCH, here, "<"))]
        current = current.__cause__ or current.__context__
    return found


def node_frames(node: fx.Node) -> list[Frame]:
    """The places outside torch that made a recorded node, outermost first."""
    return list(node.meta.get(FRAMES, ()))


def describe(node: fx.Node) -> str:
    """The operator and the source line of a node, e.g. "pad at models/resnet.py:41 `F.pad(x, ...)`"."""
    frames = node_frames(node)
    name = operator_name(node)
    if not frames:
        return f"{name} ({node.name})"
    file, line, _ = frames[-1]
    code = linecache.getline(file, line).strip()
    return f"{name} at {_shorten(file)}:{line}" + (f" `{code}`" if code else "")


def describe_error(error: BaseException) -> str:
    """The user's source line an error came from, e.g. "net.py:12 `x.view(b, 64, -1)`"; the error's type if none."""
    frames = user_frames(error)
    if not frames:
        return type(error).__name__
    file, line = frames[0]
    code = linecache.getline(file, line).strip()
    return f"{_shorten(file)}:{line}" + (f" `{code}`" if code else "")


def operator_name(node: fx.Node) -> str:
    """The bare name of a node's operator: "conv2d" for aten.conv2d.default, "relu" for aten.relu_.default."""
    if isinstance(node.target, torch._ops.OpOverload):
        name = node.target._schema.name.partition("::")[2]
        return name[:-1] if name.endswith("_") and not name.endswith("__") else name
    return getattr(node.target, "__name__", str(node.target))


def module_path(node: fx.Node) -> str:
    """The dotted name of the innermost module that a recorded node belongs to ("" for the model itself)."""
    stack = node.meta.get(STACK)
    return str(stack[-1][0]) if stack else ""


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's tensor value."""
    return tuple(int(size) for size in node.meta["val"].shape)


def read_nodes(graph: fx.Graph) -> frozenset[fx.Node]:
    """The nodes that a recorded graph's output may depend on: attention's maps, for one, are often thrown away."""
    read: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        writes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        if node.op == "output" or writes or node in read:
            read.update((node, *node.all_input_nodes))
    return frozenset(read)


def _shorten(file: str) -> str:
    return file.rpartition("site-packages/")[2]
