"""How fast training images come from JPEG files: images a second with 0, 1, 2 worker processes.

    python benchmarks/decoding.py --data ../shared/data --cache .cache/bench

The ImageNet samples of the data pack, written as JPEG at their own size (quality 90), are read as batches of 64 at
224 pixels with crops and flips, as training reads what does not fit into memory; with RandAugment, too. `cores` is CPU
time over wall time, of all processes: what reading keeps busy. The median of three passes, in turns. Nothing trains
meanwhile. A pass reads each file --repeat times: processes take a while to start, and an epoch is longer than that.
Writes benchmarks/results/decoding.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from common import ROOT, pack_loader, write_result

from edgeprune.data.augment import Stronger
from edgeprune.data.images import Geometry, file_images
from edgeprune.data.split import Split
from edgeprune.models.spec import Preprocessing

BATCH, PASSES = 64, 3
GEOMETRY = Geometry.of((3, 224, 224), interpolation="bicubic", crop_pct=0.875)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--repeat", type=int, default=8, help="how often a pass reads each image")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split = streaming(arguments.data, arguments.cache.resolve(), arguments.images, arguments.repeat)
    ways = {"plain": Stronger(), "randaugment": Stronger(randaugment="rand-m9-mstd0.5")}
    settings = [(name, workers) for name in ways for workers in arguments.workers]
    found: dict[tuple[str, int], list[tuple[float, float]]] = {setting: [] for setting in settings}
    for number in range(PASSES):
        for name, workers in settings if number % 2 == 0 else reversed(settings):
            found[name, workers].append(measured(split, ways[name], workers))
            print(name, workers, found[name, workers][-1], flush=True)
    rows: list[dict[str, Any]] = [
        {
            "augment": name,
            "workers": workers,
            "images_per_s": statistics.median(speed for speed, _ in passes),
            "cores": statistics.median(cores for _, cores in passes),
        }
        for (name, workers), passes in found.items()
    ]
    print(f"wrote {write_result('decoding', {'images': len(split), 'batch': BATCH, 'rows': rows})}")


def measured(split: Split, stronger: Stronger, workers: int) -> tuple[float, float]:
    """Images a second, and the cores that they kept busy."""
    process = psutil.Process()
    before, start = _cpu_s(process), time.perf_counter()
    count = 0
    for images, _ in split.batches(BATCH, seed=count, augment="crop-flip", stronger=stronger, workers=workers):
        count += len(images)
    seconds = time.perf_counter() - start
    return count / seconds, (_cpu_s(process) - before) / seconds


def _cpu_s(process: psutil.Process) -> float:
    """Of this process and of its children that have ended."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def streaming(data: Path, cache: Path, count: int, repeat: int) -> Split:
    """The samples as JPEG files that are read at each use."""
    from PIL import Image

    folder = cache / "decoding"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:04d}.jpg" for number in range(count)]
    if not files[-1].exists():
        images, _ = pack_loader(data).imagenet_samples("in1000_eli")
        for file, image in zip(files, images, strict=False):
            Image.fromarray(image).save(file, quality=90)
    return Split(
        name="train",
        classes=("a", "b"),
        labels=np.zeros(count * repeat, np.int64),
        images=file_images(files * repeat, GEOMETRY, memory_limit=0),
        indices=np.arange(count * repeat),
        preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    )


if __name__ == "__main__":
    main()
