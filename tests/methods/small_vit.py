"""A vision transformer small enough for a test: two blocks, four heads of eight dimensions, an embedding of 32."""

from __future__ import annotations

from typing import Any

import torch

from edgeprune.models.timm_import import import_timm


def small_vit(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return (
        import_timm()
        .models.VisionTransformer(
            img_size=16, patch_size=4, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=4, mlp_ratio=2
        )
        .eval()
    )
