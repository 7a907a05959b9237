"""Fused attention takes its scale from the width of the queries: heads of fewer dimensions would be scaled otherwise.

timm's attention modules have a flag, `fused_attn`, and compute the same without it, with the scale they were made with.
So the structure is read with the flag off, and where query and key dimensions go it stays off.
"""

from __future__ import annotations

from torch import nn

from edgeprune.graph.sharing import copy_sharing_all

FLAG = "fused_attn"


def unfused(module: nn.Module) -> nn.Module:
    """The module with fused attention off: a copy with the module's own parameters, or itself where there is none."""
    if not any(getattr(part, FLAG, False) is True for part in module.modules()):
        return module
    plain = copy_sharing_all(module)
    for part in plain.modules():
        if getattr(part, FLAG, False) is True:
            setattr(part, FLAG, False)
    return plain
