from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeprune.data.images import Geometry, array_images
from edgeprune.data.split import Split
from edgeprune.models.spec import Preprocessing


def make_split(count: int, seed: int, side: int = 8) -> Split:
    """Noisy pictures that are bright on the left (0), on the right (1) or at the top (2)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    pixels = random.integers(0, 120, (count, side, side), np.uint8)
    half = side // 2
    for image, label in zip(pixels, labels, strict=True):
        part = (slice(None), slice(half)) if label == 0 else (slice(None), slice(half, side))
        image[part if label < 2 else (slice(half), slice(None))] += 70
    return Split(
        name="toy",
        classes=("left", "right", "top"),
        labels=labels.astype(np.int64),
        images=array_images(
            pixels, Geometry.of((1, side, side), interpolation="bilinear", crop_pct=1.0), memory_limit=1 << 30
        ),
        indices=np.arange(count),
        preprocessing=Preprocessing(mean=(0.4,), std=(0.2,)),
    )


def make_net(seed: int = 0, dropout: float = 0.2) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(8 * 16, 3),
    ).eval()
