"""A larger net pruned against a smaller one of its family at equal latency: ResNet-56 against ResNet-20 and -32.

    python benchmarks/cnn_family.py --data ../shared/data --cache .cache/bench

All with their author's weights on CIFAR-10. ResNet-56 is pruned to the latency of the smaller net on this machine (its
share of ResNet-56's, both measured in turns) and trained for --epochs; then its file and the smaller net's are measured
in turns. Top-1 on the 10,000 test images. Writes benchmarks/results/cnn_family.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cnn_methods import OURS, accuracies, folder_of, ours, recipe_for
from cnn_nets import recipe_of
from common import ROOT, cifar10_npz, keep_row, write_merged, write_result
from torch import nn

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.data.open import open_data
from edgeprune.devices.discovery import open_device
from edgeprune.latency.pairs import measure_ratio
from edgeprune.models.load import load_from
from edgeprune.pipeline import prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe import Recipe
from edgeprune.stages.context import Context

LARGE, SMALL = "resnet56", ("resnet20", "resnet32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--small", nargs="*", choices=SMALL, default=list(SMALL))
    parser.add_argument("--method", choices=OURS, default="taylor")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    for name in arguments.small:
        against(name, arguments.method, arguments.data, cache, arguments.epochs)
    rows = [json.loads(file.read_text()) for file in sorted((cache / "cnn_family").glob("*/*/row.json"))]
    print(f"wrote {write_result('cnn_family', {'rows': rows})}")


def against(small: str, method: str, data: Path, cache: Path, epochs: int) -> None:
    npz, root = cifar10_npz(data, cache), folder_of(cache / "cnn_family" / f"{small}-{epochs}", method)
    done = root / "row.json"
    if not done.exists():
        root.mkdir(parents=True, exist_ok=True)
        files = {net: root / f"{net}.tflite" for net in (small, LARGE)}
        for net, file in files.items():
            recipe = recipe_of(net, data, npz, "0.5x", epochs)
            write(recipe, load_from(recipe.model).module, file)
        share = ratio(files[small], files[LARGE])["ratio"]
        print(f"{small} takes {share:.3f}x of {LARGE}", flush=True)
        recipe = recipe_for(method, LARGE, data, npz, f"{share:.3f}x", epochs)
        pruned = ours(recipe, root / "run", root / "teacher.safetensors")
        file = root / "pruned.tflite"
        context = Context(prepare_run(recipe, root / "run", resume=True), Silent())
        write(recipe, context.model("tune").module, file)
        other = load_from(recipe_of(small, data, npz, "0.5x", epochs).model)
        splits = open_data(recipe.data, other.spec, seed=recipe.seed)
        found = {"small": small, "large": LARGE, "method": method, "epochs": epochs, "share": share, "pruned": pruned}
        found |= {"small_accuracy": accuracies(other.module, splits), "latency_to_small": ratio(file, files[small])}
        keep_row(done, found)
    row = json.loads(done.read_text())
    print(small, row["pruned"]["top1"], "against", row["small_accuracy"]["top1"], row["latency_to_small"], flush=True)


def write(recipe: Recipe, module: nn.Module, file: Path) -> None:
    with MeasuringExporter("litert") as exporter:
        write_merged(exporter, load_from(recipe.model).with_module(module), file)


def ratio(a: Path, b: Path) -> dict[str, Any]:
    measured = measure_ratio(open_device("local"), a, b, runtime="litert", protocol="standard")
    return {"ratio": measured.ratio, "interval": [measured.low, measured.high], "quality": measured.quality}


if __name__ == "__main__":
    main()
