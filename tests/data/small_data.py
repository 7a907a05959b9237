"""Small images with what belongs to them, drawn here, and the model spec that they are read for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from edgeprune.data.open import open_data
from edgeprune.data.split import Split, Splits
from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.progress import Silent
from edgeprune.recipe import DataSection, TargetKind

SIDE = 16
NAMES = ("train", "validation", "calibration", "test")


class Said(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += text + "\n"


def spec(*, side: int = SIDE, classes: int = 3, labels: tuple[str, ...] = (), crop_pct: float = 1.0) -> ModelSpec:
    """Of a model whose pixels come as they are: 0..255 are 0..1."""
    preprocessing = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear", crop_pct=crop_pct)
    return ModelSpec(
        source="timm:x", input_size=(3, side, side), num_classes=classes, preprocessing=preprocessing, labels=labels
    )


def pixels(number: int, height: int = SIDE, width: int = SIDE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image (height, width, 3) unlike that of any other number."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def save_images(folder: Path, count: int, *, start: int = 0, height: int = SIDE, width: int = SIDE) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:03d}.png" for number in range(start, start + count)]
    for number, file in enumerate(files, start):
        Image.fromarray(pixels(number, height, width)).save(file)
    return files


def opened(source: str, kind: TargetKind, model: ModelSpec | None = None, **more: Any) -> Splits:
    section = {name: more.pop(name) for name in ("train", "test", "calibration", "crop_pct") if name in more}
    section = {"validation_images": 2, "calibration_images": 2, **section}
    return open_data(DataSection(source=source, **section), model or spec(), seed=0, kind=kind, **more)


def pairs(splits: Splits | Sequence[Split]) -> dict[bytes, torch.Tensor]:
    """From the pixels of each image of all splits to its target."""
    parts = [getattr(splits, name) for name in NAMES] if isinstance(splits, Splits) else splits
    found = {}
    for split in parts:
        for images, targets in split.batches(3):
            for image, target in zip(images, targets, strict=True):
                found[(image * 255).round().to(torch.uint8).numpy().tobytes()] = target
    return found


def key(image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """What `pairs` calls an image (height, width, 3)."""
    return image.transpose(2, 0, 1).tobytes()


def csv_file(path: Path, rows: Sequence[Mapping[str, object]], *, delimiter: str = ",") -> str:
    """Write a table whose columns are the first row's keys, and give its source."""
    lines = [delimiter.join(rows[0]), *(delimiter.join(str(cell) for cell in row.values()) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return f"csv:{path}"
