"""Putting modules in the place of others, wherever those are held."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def replace_modules(root: nn.Module, instead: Mapping[nn.Module, nn.Module]) -> None:
    """Put modules in the place of others, in place; a module that is held in several places goes from all of them."""
    for owner in list(root.modules()):
        for name, child in list(owner._modules.items()):
            if child is not None and child in instead:
                owner._modules[name] = instead[child]
