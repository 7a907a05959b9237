"""What a model of several inputs takes: inside of EdgePrune one tensor, outside what its author wrote.

Everything from training to the judge passes a batch as one tensor (N, C, H, W). A model of several inputs, or of one
that is no image, takes all their numbers in a row instead, (N, 1, 1, numbers). Calling it takes them apart, and
`forward` gets them as its author wrote it: as arguments, a dict, a tuple or a dataclass. Whoever traces it for a file
gives it the inputs one by one, so that the file has them one by one, too.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgeprune.errors import ModelError
from edgeprune.models.factory import users_code
from edgeprune.models.spec import InputSpec

Way = Literal["names", "order", "dict", "tuple"]
_SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """Inputs, each (N, ...), as one tensor (N, 1, 1, numbers)."""
    return torch.cat([tensor.flatten(1) for tensor in tensors], 1)[:, None, None]


def apart(batch: Tensor, inputs: Sequence[InputSpec]) -> tuple[Tensor, ...]:
    """The inputs, each (N, ...), of a tensor (N, 1, 1, numbers)."""
    parts = batch.flatten(1).split([math.prod(one.shape) for one in inputs], 1)
    return tuple(part.reshape(len(batch), *one.shape) for part, one in zip(parts, inputs, strict=True))


def by_name(given: object, inputs: Sequence[InputSpec]) -> tuple[object, ...]:
    """The inputs in their order, of what somebody holds them in: a dict, a dataclass or a NamedTuple by name, a tuple
    or a list by place; of a single input also the tensor itself.

    Raises:
        ValueError: it has others, or not as many.
    """
    names = [one.name for one in inputs]
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        given = {field.name: getattr(given, field.name, None) for field in dataclasses.fields(given)}
    if isinstance(given, tuple) and hasattr(given, "_fields"):
        given = dict(zip(given._fields, given, strict=True))
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ValueError(f"it has {', '.join(map(str, given))}, the inputs are {', '.join(names)}")
        return tuple(given[name] for name in names)
    if isinstance(given, tuple | list):
        if len(given) != len(names):
            raise ValueError(f"it has {len(given)} parts, the inputs are {', '.join(names)}")
        return tuple(given)
    if len(names) == 1:
        return (given,)
    raise ValueError(f"it is {type(given).__name__}, the inputs are {', '.join(names)}")


@dataclass(frozen=True)
class Call:
    """How a `forward` is given its inputs: as arguments by name or in order, or as one argument (a dict, a tuple, or an
    object of a class with fields of these names)."""

    inputs: tuple[InputSpec, ...]
    way: Way | type

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What `forward` is called with."""
        named = {one.name: tensor for one, tensor in zip(self.inputs, tensors, strict=True)}
        if isinstance(self.way, type):
            return (self.way(**named),), {}
        match self.way:
            case "names":
                return (), named
            case "order":
                return tuple(tensors), {}
            case "dict":
                return (named,), {}
            case "tuple":
                return (tuple(tensors),), {}

    def taken(self, given: Sequence[object]) -> tuple[Tensor, ...] | None:
        """The inputs, given one by one or all in one tensor; None where its author's own code gives them."""
        tensors = tuple(one for one in given if isinstance(one, Tensor))
        if len(tensors) < len(given):
            return None
        numbers = sum(math.prod(one.shape) for one in self.inputs)
        if len(tensors) == 1 and tensors[0].ndim == 4 and tuple(tensors[0].shape[1:]) == (1, 1, numbers):
            return apart(tensors[0], self.inputs)
        return tensors if len(tensors) == len(self.inputs) else None


def take_packed(module: nn.Module, inputs: Sequence[InputSpec], where: str) -> None:
    """Let a module take its inputs in one tensor, or one by one, from now on, in place. `inputs_of` says in which
    order: that of the arguments of `forward`, where these have their names, else the one that is given here.

    Raises:
        ModelError: its `forward` does not take inputs of these names, or its class cannot be derived from.
    """
    if _call(module) is not None:
        return
    hint = "wrap it in a plain nn.Module whose forward takes the inputs"
    kind: Any = type(module)
    call = _how_to_call(module, inputs, where)
    with users_code("its class cannot be derived from, and copied", where, hint):
        module.__class__ = _taking(kind, call)
        copied = _call(copy.copy(module)) and _call(copy.deepcopy(module))
    if copied is None:
        raise ModelError(f"a copy of it is no {kind.__name__} that takes its inputs", where=where, hint=hint)


def inputs_of(module: nn.Module) -> tuple[InputSpec, ...]:
    """The inputs of a module that `take_packed` changed; none of one that takes images."""
    call = _call(module)
    return () if call is None else call.inputs


class OneByOne(nn.Module):
    """A module that is given its inputs one by one, whatever its `forward` holds them in: torch.export asks for it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *given: Tensor) -> Any:
        return self.inner(*given)


def told(module: nn.Module, batch: Tensor) -> str:
    """The inputs of a batch with their shapes, in words."""
    inputs = inputs_of(module)
    if not inputs:
        return f"an input of {tuple(batch.shape)}"
    return "the inputs " + ", ".join(f"{one.name} {(len(batch), *one.shape)}" for one in inputs)


def how_to_give(module: nn.Module) -> str:
    """What to look at where a module does not run on its inputs."""
    if inputs_of(module):
        return (
            "check `inputs` (each without the batch); forward is given these, and nothing else; one that takes a tuple "
            "has to say so in its annotation"
        )
    return "check input_size (channels, height, width); forward is given a batch of images, and nothing else"


def given_to(module: nn.Module, batch: Tensor) -> tuple[Tensor, ...]:
    """A batch as a module is given it one by one: its images alone, or each of its inputs (N, ...)."""
    inputs = inputs_of(module)
    return apart(batch, inputs) if inputs else (batch,)


def in_order(names: Iterable[str]) -> list[str]:
    """The names of a file's several inputs in the order of the model's, as converters number them: "args_2" is before
    "args_10"."""
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def _call(module: nn.Module) -> Call | None:
    found = getattr(type(module), "_edgeprune_call", None)
    return found if isinstance(found, Call) else None


@functools.lru_cache(maxsize=64)
def _taking(cls: Any, call: Call) -> type[nn.Module]:
    """The same class, which is called with its inputs in one tensor or one by one, or as its author calls it.

    A class, and no hook or wrapper: copies of the module have it too, the names of its weights stay, and its author's
    `forward` and hooks see what they have always seen.
    """

    class Taking(cls):  # type: ignore[misc]
        _edgeprune_call = call

        def __call__(self, *given: Any, **named: Any) -> Any:
            tensors = None if named else call.taken(given)
            if tensors is None:
                return super().__call__(*given, **named)
            args, kwargs = call.arguments(tensors)
            return super().__call__(*args, **kwargs)

    Taking.__name__, Taking.__qualname__, Taking.__module__ = cls.__name__, cls.__qualname__, cls.__module__
    return Taking


def _how_to_call(module: nn.Module, inputs: Sequence[InputSpec], where: str) -> Call:
    names = [one.name for one in inputs]
    parameters = _parameters(module)
    plain = {name: one for name, one in parameters.items() if one.kind not in _SEVERAL}
    needed = [name for name, one in plain.items() if one.default is inspect.Parameter.empty]
    positional_only = any(one.kind is inspect.Parameter.POSITIONAL_ONLY for one in plain.values())
    if set(needed) <= set(names) <= set(plain) and not positional_only:
        return Call(tuple(sorted(inputs, key=lambda one: list(plain).index(one.name))), "names")
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters.values()) and not plain:
        return Call(tuple(inputs), "order")
    if len(needed) == 1:
        return Call(tuple(inputs), _held_in(_annotation(module, needed[0]), names, where))
    raise ModelError(
        f"forward takes {', '.join(needed) or 'nothing'}, and the inputs are {', '.join(names)}",
        where=where,
        hint="name [model] inputs as forward names its arguments, or let it take one: a dict, a tuple or a dataclass "
        "of the inputs",
    )


def _parameters(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(module.forward).parameters
    except (TypeError, ValueError):  # code that tells none
        return {}


def _annotation(module: nn.Module, name: str) -> Any:
    """What an argument of `forward` is said to be; nothing where that cannot be found out."""
    try:
        return typing.get_type_hints(type(module).forward).get(name)
    except Exception:  # noqa: BLE001 - a text that is no code, or the user's code
        return None


def _held_in(annotation: Any, names: Sequence[str], where: str) -> Way | type:
    """What the one argument of `forward` holds the inputs in: as its annotation says, else a dict."""
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type) or issubclass(kind, Tensor):
        return "dict"
    fields = (
        [field.name for field in dataclasses.fields(kind)]
        if dataclasses.is_dataclass(kind)
        else list(getattr(kind, "_fields", ()))
    )
    if fields:
        if set(fields) != set(names):
            raise ModelError(
                f"forward takes a {kind.__name__} of {', '.join(fields)}, and the inputs are {', '.join(names)}",
                where=where,
                hint="name [model] inputs as its fields are named",
            )
        return kind
    return "tuple" if issubclass(kind, tuple | list) else "dict"
