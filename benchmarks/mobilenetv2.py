"""MobileNetV2 with its real ImageNet weights to 0.7x measured latency, without training images beyond calibration.

    python benchmarks/mobilenetv2.py --data ../shared/data --cache .cache/bench

Accuracy is on 500 of the in1000_eli sample images (one image for a class), which is not ImageNet's validation set and
was seen in training: it serves to compare before and after. Writes benchmarks/results/mobilenetv2.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from common import ROOT, imagenet_folders, keep_row, whole_job, write_result

from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe


def recipe_for(data: Path, folders: Path, share: float, epochs: int) -> Recipe:
    return parse_recipe(
        {
            "model": {
                "name": "mobilenetv2_100",
                "arguments": {"pad_type": "same", "bn_eps": 1e-3},
                "checkpoint": str((data / "weights" / "mobilenetv2_100_keras_in1k.safetensors").resolve()),
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
            "data": {
                "source": str(folders),
                "calibration": "calibration",
                "test": "test",
                "validation_images": 0,
                "calibration_images": 300,
                "crop_pct": 0.875,
            },
            "device": {"wait_minutes": 60},
            "prune": {"target": f"{share}x", "scoring_batches": 1},
            "verify": {"images": 500},
            "tune": {"epochs": epochs, "batch_size": 30, "lr": 0.005, "distillation": 0.9, "precision": "bf16"},
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    folders = imagenet_folders(args.data, args.cache.resolve())
    recipe = recipe_for(args.data, folders, args.share, args.epochs)
    root = args.cache.resolve() / f"mobilenetv2-{args.share}x-{args.epochs}"
    done = root.parent / f"{root.name}.json"
    if not done.exists():
        started = time.time()
        result = whole_job(recipe, root)
        keep_row(done, {**result, "seconds": time.time() - started})
    settings = {"share": args.share, "epochs": args.epochs}
    print(write_result("mobilenetv2", {"settings": settings, **json.loads(done.read_text())}), file=sys.stderr)


if __name__ == "__main__":
    main()
