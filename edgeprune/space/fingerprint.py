"""What tells, in milliseconds, that a module was changed: its parts, what they keep, and which tensors they hold.

Values of tensors are not read. A tensor is told from others by where it lies, and from what it was by torch's count of
the writes to it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor, nn

_DEPTH = 6  # of lists in lists, and of objects that hold objects
_TENSORS = ("_parameters", "_buffers")
_APART = (*_TENSORS, "_modules", "training", "_non_persistent_buffers_set", "_is_full_backward_hook")


def fingerprint(module: nn.Module) -> Hashable:
    """Equal for a module in the same state (its mode aside); keeps no part of it alive."""
    return tuple((name, id(part), _of_part(part)) for name, part in module.named_modules(remove_duplicate=False))


def _of_part(part: nn.Module) -> Hashable:
    kept = vars(part)
    tensors = tuple(_of(kept.get(name, {}), 1) for name in _TENSORS)
    return type(part), tensors, tuple((name, _of(kept[name], 0)) for name in kept if name not in _APART)


def _of(value: Any, depth: int) -> Hashable:
    """A value that a module keeps. Modules are parts of their own; of objects, what they hold counts as well."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return kind, value
    if isinstance(value, Tensor):
        return _of_tensor(value)
    inside: Hashable = ()
    if depth < _DEPTH and not isinstance(value, nn.Module | type):
        if isinstance(value, dict):
            inside = tuple((_of(key, depth + 1), _of(item, depth + 1)) for key, item in value.items())
        elif isinstance(value, list | tuple):
            inside = tuple(_of(item, depth + 1) for item in value)
        elif isinstance(value, set | frozenset):
            inside = frozenset(_of(item, depth + 1) for item in value)
        elif not callable(value) and hasattr(value, "__dict__"):
            inside = _of(vars(value), depth + 1)
        if isinstance(value, dict | list | tuple | set | frozenset):
            return kind, inside
    return kind, id(value), inside


def _of_tensor(tensor: Tensor) -> Hashable:
    writes = None if tensor.is_inference() else tensor._version
    place = None if tensor.is_sparse or tensor.is_mkldnn else tensor.data_ptr()
    return type(tensor), id(tensor), place, writes, tuple(tensor.shape), tensor.dtype, tensor.device
