"""Copies of a module that keep some of its tensors: those that nobody writes to need not be copied."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def copy_sharing(module: Module, tensors: Iterable[Tensor]) -> Module:
    """A copy of a module in which these of its parameters and buffers are the module's own."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    return copy.deepcopy(module, shared)


def copy_sharing_all(module: Module) -> Module:
    """A copy of a module with the module's own parameters and buffers: to be read, or run in eval mode, alone."""
    return copy_sharing(module, (*module.parameters(), *module.buffers()))
