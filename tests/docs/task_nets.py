"""Untrained nets that answer what each task reads, and files of data as docs/tasks.md describes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

SIDE = 16


def vector(numbers: int = 2) -> nn.Module:
    """(N, numbers): of classes, labels or dimensions."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, numbers))


def pixels(numbers: int = 3) -> nn.Module:
    """(N, numbers, SIDE, SIDE)."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, numbers, 1))


def pictures(count: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def folders(root: Path, classes: tuple[str, ...], each: int = 12) -> None:
    """root/CLASS/0.png and so on."""
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number, image in enumerate(pictures(each, seed=hash_of(root, place))):
            Image.fromarray(image).save(root / name / f"{number}.png")


def masked(root: Path, count: int) -> None:
    """root/images/0.png, root/masks/0.png and so on."""
    random = np.random.default_rng(hash_of(root, 0))
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number, image in enumerate(pictures(count, seed=hash_of(root, 1))):
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        mask = random.choice(np.array([0, 1, 2, 255], np.uint8), (SIDE, SIDE))
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")


def hash_of(root: Path, place: int) -> int:
    """A seed of a folder's own."""
    return 10 * sum(map(ord, root.name)) + place
