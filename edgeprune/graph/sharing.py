"""Copies of a module that keep some of its tensors: those that nobody writes to need not be copied."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)
_ATOMS = frozenset((type(None), bool, int, float, str, bytes, complex, type))
_OWN = frozenset(vars(nn.Module()))  # what every module has, of no two the same: most of it are hooks, and empty
_NEVER = "_compiled_call_impl"  # what torch leaves out of copies as well
_STATES = (  # these only add what modules from before had not yet
    *(nn.Module.__setstate__, nn.modules.conv._ConvNd.__setstate__),
    *(nn.Softmax.__setstate__, nn.Upsample.__setstate__),
)


def copy_sharing(module: Module, tensors: Iterable[Tensor]) -> Module:
    """A copy of a module in which these of its parameters and buffers are the module's own."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    return copy_module(module, shared)


def copy_sharing_all(module: Module) -> Module:
    """A copy of a module with the module's own parameters and buffers: to be read, or run in eval mode, alone."""
    return copy_sharing(module, (*module.parameters(), *module.buffers()))


def copy_module(module: Module, memo: dict[int, Any]) -> Module:
    """`copy.deepcopy`, in a fraction of the time: most of what modules keep is empty or cannot change."""
    known: Module | None = memo.get(id(module))
    if known is not None:
        return known
    cls: Any = type(module)
    if not _is_plain(cls):
        return copy.deepcopy(module, memo)
    made: Module = cls.__new__(cls)
    memo[id(module)] = made
    kept = vars(made)
    for name, value in vars(module).items():
        if name != _NEVER:
            kind = type(value)
            if kind in _ATOMS:
                kept[name] = value
            else:
                kept[name] = _copied(value, memo) if name not in _OWN or value else kind()
    return made


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS or (kind is tuple and all(type(item) in _ATOMS for item in value)):
        return value
    if kind is set and not value:
        return set()
    if kind in (dict, OrderedDict) and id(value) not in memo:
        made = memo[id(value)] = kind()
        for key, item in value.items():
            made[key if type(key) in _ATOMS else copy.deepcopy(key, memo)] = _copied(item, memo)
        return made
    if isinstance(value, nn.Module):
        return copy_module(value, memo)
    return copy.deepcopy(value, memo)


@lru_cache(maxsize=4096)
def _is_plain(cls: Any) -> bool:
    """Whether a module's copy is one of what it keeps, and nothing else."""
    own = any(hasattr(cls, name) for name in ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__"))
    default = all(getattr(cls, name) is getattr(object, name) for name in ("__new__", "__reduce__", "__reduce_ex__"))
    states = cls.__setstate__ in _STATES and cls.__getstate__ is nn.Module.__getstate__
    return not own and default and states
