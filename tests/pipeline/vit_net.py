"""A vision transformer of two blocks for images of 16 pixels."""

from __future__ import annotations

from torch import nn

from edgeprune.models.timm_import import import_timm


def net() -> nn.Module:
    module: nn.Module = import_timm().models.VisionTransformer(
        img_size=16, patch_size=4, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2
    )
    return module
