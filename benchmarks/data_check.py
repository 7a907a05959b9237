"""How long the check of all bodies takes when a run loads 10,000 photos, and when they are opened again.

    python benchmarks/data_check.py

The photos are made here: JPEG of 500x375, 10 classes, as many bytes as photos of that size have. Other work on the
machine makes it slower, so the figures are upper bounds then (`load` says how busy it was). Writes
benchmarks/results/data_check.json.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import write_result
from PIL import Image

from edgeprune.data.open import open_data
from edgeprune.models.spec import ModelSpec, Preprocessing
from edgeprune.progress import Silent
from edgeprune.recipe import DataSection

PHOTOS, CLASSES = 10_000, 10
WIDTH, HEIGHT = 500, 375
SPEC = ModelSpec(
    source="timm:mobilenetv2_100",
    input_size=(3, 224, 224),
    num_classes=CLASSES,
    preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3),
)


class Counted(Silent):
    """Counts how often it is told how far the check is."""

    def __init__(self) -> None:
        self.updates = 0

    def update(self, text: str, done: float, total: float) -> None:
        self.updates += text.startswith("checking") and done <= total


def make_photos(root: Path) -> int:
    """Photos with detail at every scale, each another one; returns their bytes."""
    random = np.random.default_rng(0)
    scene = np.zeros((1500, 2000, 3), np.float32)
    for side in (4, 16, 64, 256):
        noise = random.integers(0, 256, (3 * side, 4 * side, 3), np.uint8)
        scene += np.asarray(Image.fromarray(noise).resize((2000, 1500), Image.Resampling.BICUBIC), np.float32) / 4
    whole = Image.fromarray(scene.astype(np.uint8))
    for number in range(PHOTOS):
        left, top = (int(random.integers(0, most)) for most in (2000 - WIDTH, 1500 - HEIGHT))
        folder = root / f"class{number % CLASSES}"
        folder.mkdir(exist_ok=True)
        photo = whole.crop((left, top, left + WIDTH, top + HEIGHT))
        photo.putpixel((0, 0), (number % 256, number // 256, 0))
        photo.save(folder / f"{number:05d}.jpg", quality=92)
    return sum(file.stat().st_size for file in root.rglob("*.jpg"))


def seconds(root: Path, told: Counted) -> float:
    started = time.perf_counter()
    open_data(DataSection(source=str(root)), SPEC, seed=0, progress=told)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        root = Path(folder) / "photos"
        root.mkdir()
        size = make_photos(root)
        time.sleep(3)  # what was written in the last two seconds is looked at again
        told = Counted()
        figures = {
            "photos": PHOTOS,
            "megabytes": size / 1e6,
            "first_s": seconds(root, told),
            "updates": told.updates,
            "again_s": seconds(root, Counted()),
            "load": os.getloadavg()[0],
        }
    print(write_result("data_check", figures), figures, file=sys.stderr)


if __name__ == "__main__":
    main()
