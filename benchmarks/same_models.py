"""What a change of the house does to what is pruned: hashes of the pruned and of the re-trained weights, case by case.

    python benchmarks/same_models.py --data ../shared/data --cache .cache/same --out before.json
    python benchmarks/same_models.py --data ../shared/data --cache .cache/same2 --out after.json --against before.json

Run it before and after, each with the code of its time. Nothing is measured: targets are counted, or predicted from the
typical table of a device's profile, so the same seeds have to give the same models, bit for bit. ResNet-20 with its
real weights on 1,500 images of CIFAR-10, one epoch; and the demo's digits. One thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cnn_nets import cifar_resnet
from common import ROOT, cifar10_npz

from edgeprune.pipeline import do_stage, prepare_run
from edgeprune.progress import Silent
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import lock
from edgeprune.stages.context import Context

DEVICE = "profile:lab-cortex-a76"  # with a typical table: nothing is measured
HALF = "20.4MMACs"  # of ResNet-20
IMAGES, TESTED = 1500, 200
CASES: dict[str, dict[str, Any]] = {
    "taylor": {},
    "taylor, no branches": {"branches": False},
    "taylor, predicted latency": {"target": "0.6x"},
    "taylor, exact": {"allocator": "additive"},
    "taylor, exact, predicted latency": {"allocator": "additive", "target": "0.6x"},
    "halp": {"allocator": "knapsack"},
    "taylor, in turns": {"epochs": 2, "interval": 1},
    "magnitude": {"method": "magnitude"},
    "magnitude, global": {"method": "magnitude", "allocator": "global"},
    "magnitude, uniform": {"method": "magnitude", "allocator": "uniform"},
    "netadapt": {"method": "magnitude", "allocator": "netadapt"},
    "reprune": {"method": "reprune"},
    "reprune, as published": {
        **{"method": "reprune", "allocator": "scales"},
        **{"epochs": 2, "interval": 1, "regrow": 0.3},
    },
    "keep": {"keep": ["layer1.*.conv1"]},
}
STAGES = ("load", "probe", "prune", "tune")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "same")
    parser.add_argument("--out", type=Path, required=True, help="where the hashes go")
    parser.add_argument("--against", type=Path, help="hashes of before: exit with 1 where one differs")
    parser.add_argument("--only", nargs="*", help="some of the cases")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cache = arguments.cache.resolve()
    npz = _few_images(cifar10_npz(arguments.data, cache), cache)
    recipes = {name: _resnet20(arguments.data, npz, prune) for name, prune in CASES.items()}
    zeros = {"zeros": 0.5, "layers": "all"}
    recipes["zeros"] = _resnet20(arguments.data, npz, {"target": "1x"}, sparse=zeros)
    recipes["demo"] = _digits()
    found: dict[str, dict[str, str]] = {}
    for name, recipe in recipes.items():
        if arguments.only and name not in arguments.only:
            continue
        found[name] = _hashes(recipe, cache / name.replace(" ", "_").replace(",", ""))
        print(name, found[name], flush=True)
        arguments.out.write_text(json.dumps(found, indent=1))
    if arguments.against is None:
        return 0
    before = json.loads(arguments.against.read_text())
    other = [name for name, hashes in found.items() if hashes != before.get(name)]
    print(f"{len(found) - len(other)} of {len(found)} cases are the same bit for bit; other: {other or 'none'}")
    return 1 if other else 0


def _hashes(tree: dict[str, Any], folder: Path) -> dict[str, str]:
    """Short hashes of the weights after prune and after tune."""
    with lock(folder):
        context = Context(prepare_run(parse_recipe(tree), folder, resume=True), Silent(), trust=True)
        for stage in STAGES:
            do_stage(context, stage)
    return {
        stage: hashlib.sha256((folder / stage / "model.safetensors").read_bytes()).hexdigest()[:16]
        for stage in ("prune", "tune")
    }


def _resnet20(data: Path, npz: Path, prune: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model": cifar_resnet(data, "resnet20"),
        "data": {"source": f"npz:{npz}", "validation_images": 200, "calibration_images": 64},
        "device": {"id": DEVICE},
        "prune": {"target": HALF, "judging_images": 64, "scoring_batches": 2, "reconstruct": 64, **prune},
        "tune": {"epochs": 1, "lr": 0.02},
        **more,
    }


def _digits() -> dict[str, Any]:
    file = ROOT / ".cache" / "digits" / "small_cnn.safetensors"
    if not file.exists():
        subprocess.run([sys.executable, str(ROOT / "examples" / "train_digits.py"), str(file)], check=True, cwd=ROOT)
    return {
        "model": {
            "factory": f"{ROOT / 'examples' / 'small_cnn.py'}:small_cnn",
            "checkpoint": str(file),
            "input_size": [1, 32, 32],
        },
        "data": {"source": "digits", "validation_images": 100, "calibration_images": 200},
        "prune": {"target": "1MMACs", "scoring_batches": 2},
        "tune": {"epochs": 2, "batch_size": 64, "lr": 0.02, "augment": "crop"},
    }


def _few_images(npz: Path, cache: Path) -> Path:
    file = cache / "few.npz"
    if not file.exists():
        whole = np.load(npz)
        np.savez(
            file,
            train_images=whole["train_images"][:IMAGES],
            train_labels=whole["train_labels"][:IMAGES],
            test_images=whole["test_images"][:TESTED],
            test_labels=whole["test_labels"][:TESTED],
        )
    return file


if __name__ == "__main__":
    sys.exit(main())
