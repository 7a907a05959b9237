"""What a second process is worth in training: seconds an epoch, one process against two, a thread each.

    python benchmarks/processes.py --data ../shared/data --cache .cache/bench

ResNet-20 (half its MACs, 8,192 images of CIFAR-10, batches of 128) and the U-Net of examples/segmentation (its own data
and recipe), in fp32, in turns: one process with one thread, two processes (gloo) with one thread each, one process with
two threads. The first epoch is left out. Writes benchmarks/results/processes.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from cnn_nets import cifar_resnet
from common import ROOT, cifar10_npz, write_result

WAYS = {"1 process, 1 thread": (1, 1), "2 processes, 1 thread each": (2, 1), "1 process, 2 threads": (1, 2)}
IMAGES = {"resnet20": 8192, "unet": 10_000}  # at most
ONE = Path(__file__).with_name("one_training.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    root = arguments.cache.resolve() / "processes"
    root.mkdir(parents=True, exist_ok=True)
    runs = {"resnet20": _resnet(arguments.data, arguments.cache.resolve(), root), "unet": _unet(root)}
    rows: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        for net, run in runs.items():
            for way in list(WAYS) if number % 2 == 0 else reversed(WAYS):
                rows += [{"net": net, "way": way, "epoch_s": s} for s in _epochs(run, net, way, arguments.epochs, root)]
                print(rows[-1], flush=True)
    summary = {net: _compared([row for row in rows if row["net"] == net]) for net in runs}
    print(json.dumps(summary, indent=1))
    print(f"wrote {write_result('processes', {'images': IMAGES, 'summary': summary, 'rows': rows})}")


def _epochs(run: Path, net: str, way: str, epochs: int, root: Path) -> list[float]:
    """Seconds of each epoch but the first."""
    processes, threads = WAYS[way]
    out = root / "out.json"
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    begin = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    asked = [str(ONE), "train", str(run), "0", str(epochs), str(IMAGES[net]), str(out)]
    subprocess.run([sys.executable, *begin, *asked], check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds: list[float] = json.loads(out.read_text())["each_s"]
    return seconds[1:]


def _compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each way, and how often it is as fast as one process with one thread."""
    medians = {way: statistics.median(row["epoch_s"] for row in rows if row["way"] == way) for way in WAYS}
    first = medians[next(iter(WAYS))]
    return {way: {"epoch_s": median, "times_as_fast": first / median} for way, median in medians.items()}


def _resnet(data: Path, cache: Path, root: Path) -> Path:
    return _prepared(
        root / "resnet20",
        {
            "model": cifar_resnet(data, "resnet20"),
            "data": {"source": f"npz:{cifar10_npz(data, cache)}", "validation_images": 1000, "calibration_images": 64},
            "device": {"id": "profile:lab-cortex-a76"},  # a counted target: nothing is measured
            "prune": {"target": "20.4MMACs"},
            "tune": {"lr": 0.05, "batch_size": 128},
        },
    )


def _unet(root: Path) -> Path:
    folder = root / "segmentation"
    if not (folder / "recipe.toml").exists():
        shutil.copytree(ROOT / "examples" / "segmentation", folder, dirs_exist_ok=True)
        (script,) = folder.glob("make_*.py")
        subprocess.run([sys.executable, script], check=True, stdout=subprocess.DEVNULL)
    tree = tomllib.loads((folder / "recipe.toml").read_text())
    tree["model"] |= {name: _inside(folder, tree["model"][name]) for name in ("factory", "checkpoint")}
    tree["data"]["source"] = _inside(folder, tree["data"]["source"])
    return _prepared(root / "unet", tree | {"prune": {"enabled": False}})


def _inside(folder: Path, name: str) -> str:
    kind, mark, rest = name.partition("npz:")
    return f"{kind}{mark}{folder / rest}" if mark else str(folder / name)


def _prepared(run: Path, tree: dict[str, Any]) -> Path:
    recipe = run.with_suffix(".recipe.json")
    if not (run / "prune" / "stage.json").exists():
        recipe.write_text(json.dumps(tree))
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, str(ONE), "prune", str(recipe), str(run)], check=True, env=environment)
    return run


if __name__ == "__main__":
    main()
