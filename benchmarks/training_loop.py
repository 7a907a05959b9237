"""The training loop as it was and as it is, side by side: accuracy after re-training, and images a second.

    python benchmarks/training_loop.py --data ../shared/data --cache .cache/bench --before 9d2e64b

ResNet-20 and -56 with their author's weights are pruned to half their MACs once, by the code of before, and re-trained
for 5 epochs from three seeds by either code, in turns, one process at a time with one thread, in fp32. Top-1 is on the
10,000 test images. Writes benchmarks/results/training_loop_NETS.json; it resumes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from cnn_nets import cifar_resnet
from common import ROOT, cifar10_npz, keep_row, write_result

HALF = {"resnet20": "20.4MMACs", "resnet56": "62.7MMACs"}
VALIDATION = 5000
ROOMS = ("edgeprune", "exporters", "device_profiles", "apps", "examples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--before", default="9d2e64b", help="the git revision to compare with")
    parser.add_argument("--nets", nargs="+", default=list(HALF), choices=list(HALF))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=45_000, help="training images, fewer for a trial of this file")
    arguments = parser.parse_args()
    root = arguments.cache.resolve() / "training_loop"
    trees = {"before": _tree_of(arguments.before, root / "before"), "after": ROOT}
    rows = []
    for number, (net, seed) in enumerate(itertools.product(arguments.nets, arguments.seeds)):
        run = _pruned(net, arguments, root, trees["before"])
        order = list(trees) if number % 2 == 0 else list(reversed(trees))
        for way in order:
            out = root / f"{net}-{arguments.images}x{arguments.epochs}-seed-{seed}-{way}.json"
            if not out.exists():
                _child(trees[way], "train", run, seed, arguments.epochs, arguments.images, out)
            rows.append({"net": net, "seed": seed, "way": way, **json.loads(out.read_text())})
            print(rows[-1], flush=True)
    summary = {
        net: {
            way: {
                key: statistics.mean(row[key] for row in rows if (row["net"], row["way"]) == (net, way))
                for key in ("top1", "images_per_s")
            }
            for way in trees
        }
        for net in arguments.nets
    }
    print(json.dumps(summary, indent=1))
    shared = {"before": arguments.before, "epochs": arguments.epochs, "images": arguments.images}
    name = "_".join(("training_loop", *arguments.nets))
    print(f"wrote {write_result(name, {**shared, 'summary': summary, 'rows': rows})}")


def _pruned(net: str, arguments: argparse.Namespace, root: Path, tree: Path) -> Path:
    run, recipe = root / net, root / f"{net}.recipe.json"
    npz = cifar10_npz(arguments.data, arguments.cache.resolve())
    asked: dict[str, Any] = {
        "model": cifar_resnet(arguments.data, net),
        "data": {"source": f"npz:{npz}", "validation_images": VALIDATION, "calibration_images": 64},
        "prune": {"target": HALF[net]},
        "tune": {"lr": 0.05},
    }
    if not (run / "prune" / "stage.json").exists():
        keep_row(recipe, asked)
        _child(tree, "prune", recipe, run)
    return run


def _child(tree: Path, *arguments: object) -> None:
    """`one_training.py` with the code of a tree."""
    cache = str(tree / ".cache" / "xdg")  # older code does not read newer tables
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": cache}
    file = Path(__file__).with_name("one_training.py")
    subprocess.run([sys.executable, str(file), *map(str, arguments)], check=True, env=environment)


def _tree_of(revision: str, place: Path) -> Path:
    """The code of a revision, taken out of git once."""
    if not (place / "edgeprune").exists():
        place.mkdir(parents=True, exist_ok=True)
        command = ["git", "-C", str(ROOT), "archive", revision, *ROOMS]
        archive = subprocess.run(command, check=True, capture_output=True)
        subprocess.run(["tar", "-x", "-C", str(place)], check=True, input=archive.stdout)
    return place


if __name__ == "__main__":
    main()
