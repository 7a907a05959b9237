"""Folders of small pictures that can be told apart, and what opens them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeprune.data.open import open_data
from edgeprune.data.split import Split, Splits
from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.progress import Silent
from edgeprune.recipe import DataSection

PARTS = ("train", "validation", "calibration", "test")


class Said(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.text = ""
        self.updates: list[tuple[str, float, float]] = []

    def say(self, text: str) -> None:
        self.text += text + "\n"

    def update(self, text: str, done: float, total: float) -> None:
        self.updates.append((text, done, total))


def spec(classes: int, labels: tuple[str, ...] = (), *, channels: int = 3, side: int = 16) -> ModelSpec:
    preprocessing = Preprocessing(mean=(0.0,) * channels, std=(1.0,) * channels, interpolation="bilinear")
    return ModelSpec(
        source="factory.py:net",
        input_size=(channels, side, side),
        num_classes=classes,
        preprocessing=preprocessing,
        labels=labels,
    )


def picture(number: int, width: int = 20, height: int = 24) -> Image.Image:
    """A picture like no other number's."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8))


def photos(root: Path, counts: Mapping[str, int], start: int = 0) -> Path:
    """PNG pictures in class folders, all different."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            picture(number).save(root / name / f"{number}.png")
        start += count
    return root


def opened(source: Path | str, classes: int, *, labels: tuple[str, ...] = (), **options: Any) -> tuple[Splits, Said]:
    """The splits of data, and what was told; options of `open_data`, and those of [data]."""
    said = Said()
    given = {name: options.pop(name) for name in list(options) if name in DataSection.model_fields}
    section = DataSection(source=str(source), **{"validation_images": 4, "calibration_images": 4, **given})
    return open_data(section, spec(classes, labels), **{"seed": 0, "progress": said, **options}), said


def contents(split: Split) -> list[bytes]:
    """The pixels of each image."""
    return [image.tobytes() for image in split.images.pixels(split.indices)]


def share_nothing(splits: Splits) -> bool:
    parts = [set(contents(getattr(splits, part))) for part in PARTS]
    return sum(map(len, parts)) == len(set().union(*parts))
