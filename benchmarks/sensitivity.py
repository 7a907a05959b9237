"""How many zeros each type of layer of MobileNetV2 bears, with its ImageNet weights and no re-training.

    python benchmarks/sensitivity.py --data ../shared/data --cache .cache/bench

On 400 of the in1000_eli sample images (500 classes, seen in training: it serves to compare types of layers). Writes
benchmarks/results/sensitivity.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import ROOT, imagenet_folders, write_result
from mobilenetv2 import recipe_for

import edgeprune

IMAGES = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    arguments = parser.parse_args()
    recipe = recipe_for(arguments.data, imagenet_folders(arguments.data, arguments.cache.resolve()), 0.5, 0)
    data = recipe.data.model_copy(update={"train": "test", "test": None, "validation_images": IMAGES})
    found = edgeprune.sensitivity(recipe.model_copy(update={"data": data}), images=IMAGES)
    for row in found.types:
        print(row.name, row.layers, [f"{accuracy:.3f}" for accuracy in row.accuracy], row.bears)
    print(f"wrote {write_result('sensitivity', found.model_dump(mode='json'))}")


if __name__ == "__main__":
    main()
