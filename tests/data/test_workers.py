"""Images that stream from disk: the same batches whoever reads them, and clear errors while they are read."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facts import refused
from PIL import Image

from edgeprune.data.augment import Stronger
from edgeprune.data.images import Geometry, file_images
from edgeprune.data.split import Split
from edgeprune.errors import DataError
from edgeprune.models.spec import Preprocessing

COUNT = 22
GEOMETRY = Geometry.of((3, 16, 16), interpolation="bilinear", crop_pct=1.0)
STRONG = Stronger(randaugment="rand-m9-mstd0.5", repeats=2)


def streaming(folder: Path) -> Split:
    random = np.random.default_rng(0)
    files = [folder / f"{number:02d}.png" for number in range(COUNT)]
    for file in files:
        Image.fromarray(random.integers(0, 256, (20, 24, 3), np.uint8)).save(file)
    images = file_images(files, GEOMETRY, memory_limit=0)
    assert images.streams
    return Split(
        name="train",
        classes=("a", "b"),
        labels=np.arange(COUNT, dtype=np.int64) % 2,
        images=images,
        indices=np.arange(COUNT),
        preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3),
    )


def batches(split: Split, **more: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(split.batches(8, **{"seed": 4, "augment": "crop-flip", **more}))


def same(one: list[tuple[torch.Tensor, torch.Tensor]], other: list[tuple[torch.Tensor, torch.Tensor]]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) for first, second in pairs for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("stronger", [Stronger(), STRONG, Stronger(erasing=0.5)])
def test_the_same_seed_gives_the_same_batches_however_many_workers(tmp_path: Path, stronger: Stronger) -> None:
    split = streaming(tmp_path)
    drawn = np.random.get_state()[1].sum()  # type: ignore[union-attr]
    alone = batches(split, stronger=stronger)
    for workers in (1, 2):
        assert same(alone, batches(split, stronger=stronger, workers=workers))
    assert not same(alone, batches(split, stronger=stronger, seed=5))
    assert np.random.get_state()[1].sum() == drawn  # type: ignore[union-attr]
    if stronger != Stronger():
        assert not same(alone, batches(split))


def test_each_process_gets_its_part_of_every_batch(tmp_path: Path) -> None:
    split = streaming(tmp_path)
    strong = Stronger(randaugment="rand-m9")
    whole = batches(split, stronger=strong)
    parts = [
        batches(split, stronger=strong, part=lambda size, k=k: slice(size * k // 3, size * (k + 1) // 3))
        for k in range(3)
    ]
    put_together = [
        tuple(torch.cat(list(pieces)) for pieces in zip(*batch, strict=True)) for batch in zip(*parts, strict=True)
    ]
    assert same(whole, put_together)  # type: ignore[arg-type]


def test_repeated_images_are_changed_differently(tmp_path: Path) -> None:
    split = streaming(tmp_path)
    found = batches(split, stronger=STRONG, augment="none")
    assert sum(len(labels) for _, labels in found) == COUNT
    images, labels = found[0]
    assert torch.equal(labels[::2], labels[1::2])
    assert not torch.equal(images[::2], images[1::2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_vanishes_is_named(tmp_path: Path, workers: int) -> None:
    split = streaming(tmp_path)
    (tmp_path / "07.png").unlink()
    with refused(DataError, "07.png", "--resume"):
        batches(split, workers=workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_changes_is_named(tmp_path: Path, workers: int) -> None:
    split = streaming(tmp_path)
    assert len(batches(split, workers=workers)) == 3
    Image.new("RGB", (20, 24)).save(tmp_path / "07.png")
    with refused(DataError, "07.png", "changed"):
        batches(split, workers=workers)


def test_a_worker_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, parent = streaming(tmp_path), os.getpid()
    read = Geometry.apply

    def dying(self: Geometry, image: Image.Image) -> Any:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, image)

    monkeypatch.setattr(Geometry, "apply", dying)
    with refused(DataError, "tune.workers", "tune.batch_size"):
        batches(split, workers=1)
