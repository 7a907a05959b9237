"""300 mutated images: each is decoded, or refused in our own words."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from mutations import SEED, Judge, Mutator
from PIL import Image

from edgeprune.data.images import Geometry, file_images

COUNT = 300
GEOMETRY = Geometry.of((3, 16, 16), interpolation="bicubic", crop_pct=0.9)
KINDS = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp", "PPM": "ppm"}


def files() -> list[tuple[str, bytes]]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    found = []
    for kind, suffix in KINDS.items():
        stream = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(stream, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
        found.append((suffix, stream.getvalue()))
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0]).convert("P").save(stream, "PNG")
    return [*found, ("png", stream.getvalue())]


@pytest.mark.filterwarnings("ignore")
def test_mutated_images(tmp_path: Path) -> None:
    mutator, judge, whole = Mutator(SEED), Judge(), files()
    for number in range(COUNT):
        suffix, content = whole[number % len(whole)]
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(mutator.word(content) if number % 3 == 0 else mutator.bytes(content))

        def decode(path: Path = path) -> None:
            images = file_images([path], GEOMETRY, memory_limit=1 << 20)
            assert images.pixels(np.array([0])).shape == (1, 3, 16, 16)

        judge.look(decode, (number, path))
    judge.saw_both(COUNT // 20)
