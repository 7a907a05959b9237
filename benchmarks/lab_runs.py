"""ResNet-20 on CIFAR-10 pruned to 0.6x of its latency on the ARM64 lab, over adb and over ssh, and verified there.

    python benchmarks/lab_runs.py --data ../shared/data --cache .cache/bench

Boots the machine of tests/lab under icount, where a second is a count of instructions: it repeats, and it is not a
phone's latency. Parts: `adb` and `ssh` (the whole job, 1,000 test images on the machine and here), `choice` (the
files of the adb run and the unpruned ones on both processors of the lab, with and without dot product: which is the
most accurate below a latency differs), `mobilenetv2` (a run to a counted target: its report has the kernels of both
files on the machine). Everything resumes. Writes benchmarks/results/lab_runs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from common import ROOT, Lines, cifar10_npz, export, imagenet_folders, keep_row, whole_job, write_result
from lab import lab
from mobilenetv2 import recipe_for as share_recipe

import edgeprune
from edgeprune.artifacts.manifest import Manifest
from edgeprune.data.open import open_data
from edgeprune.devices.local import LocalDevice
from edgeprune.devices.registry import AddedDevice, add_device
from edgeprune.latency.profile import profile
from edgeprune.latency.protocol import measure
from edgeprune.models.load import load_from
from edgeprune.recipe import Recipe
from edgeprune.recipe_file import parse_recipe
from edgeprune.reparam.merge import merge
from edgeprune.stages.export import read_manifests
from edgeprune.verify.execute import run_file
from edgeprune.verify.parity import top1_accuracy
from edgeprune.verify.verdict import FileVerdict

PARTS = ("adb", "ssh", "choice", "mobilenetv2")
NAME = "lab-benchmark"
PIXELS = 96  # of MobileNetV2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    root = arguments.cache / "lab"
    root.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CONFIG_HOME"] = str(root / "config")  # the devices that the user has added stay as they are
    npz = cifar10_npz(arguments.data, root)
    done = root / "results.json"
    found: dict[str, Any] = json.loads(done.read_text()) if done.exists() else {}
    for part in arguments.only:
        print(f"== {part} {time.strftime('%H:%M:%S')}", flush=True)
        if part == "mobilenetv2":
            with lab(keep=root) as machine:
                recipe = mobilenet_recipe(machine.device.id, arguments.data, imagenet_folders(arguments.data, root))
                outcome = edgeprune.run(recipe, root / part, resume=True, progress=Lines())
            found[part] = {f.file: kernels_of(f) for f in outcome.verdict.files}
        elif part == "choice":
            found[part] = choice(recipe_for("local", arguments.data, npz, arguments.epochs), root)
        else:
            with lab(keep=root) as machine:
                id = machine.device.id if part == "adb" else f"ssh:{NAME}"
                if part == "ssh":
                    add_device(AddedDevice(name=NAME, host="labarm", ssh_config=str(machine.ssh_config)))
                recipe = recipe_for(id, arguments.data, npz, arguments.epochs)
                found[part] = whole_job(recipe, root / part)
        keep_row(done, found)
        write_result("lab_runs", found)


def recipe_for(device: str, data: Path, npz: Path, epochs: int) -> Recipe:
    return parse_recipe(
        {
            "model": {
                "factory": f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet20",
                "checkpoint": str((data / "weights" / "cifar10_resnet20_akamaster.safetensors").resolve()),
                "input_size": [3, 32, 32],
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            },
            "data": {"source": f"npz:{npz}", "validation_images": 1000, "calibration_images": 256},
            "device": {"id": device},
            "prune": {"target": "0.6x"},
            "tune": {"epochs": epochs, "precision": "bf16", "lr": 0.05, "distillation": 0.7},
            "export": {"formats": ["tflite"]},
            "verify": {"images": 1000},
        },
        where="benchmark",
    )


def mobilenet_recipe(device: str, data: Path, folders: Path) -> Recipe:
    """MobileNetV2 at 96 pixels, hardly pruned: what counts is what its files do on the machine. (At 224 pixels an
    inference takes two seconds to emulate, and the measurements of one run hours.)"""
    recipe = share_recipe(data, folders, share=0.9, epochs=1).model_dump(exclude_unset=True)
    recipe |= {"device": {"id": device}, "export": {"formats": ["tflite"]}}
    recipe["model"] |= {"input_size": [3, PIXELS, PIXELS]}
    recipe["prune"] |= {"target": "54MMACs"}  # of 55
    recipe["verify"] |= {"images": 100}
    return parse_recipe(recipe, where="benchmark")


def kernels_of(file: FileVerdict) -> dict[str, Any]:
    profile = file.profile
    assert file.latency is not None
    assert profile is not None
    return {
        "median_s": file.latency.median_s,
        "kernels": len(profile.kernels),
        "kernels_s": profile.sum_s,
        "dearest": [[k.name, k.median_s, k.share] for k in sorted(profile.kernels, key=lambda k: -k.median_s)[:8]],
        "checks": {c.name: {"value": c.value, "outcome": c.outcome} for c in file.checks},
    }


def choice(recipe: Recipe, root: Path) -> dict[str, Any]:
    """Accuracy on all test images (here) and latency on both processors of four files."""
    files = {**unpruned(recipe, root / "unpruned"), **exported("pruned", root / "adb" / "export")}
    found: dict[str, Any] = {"accuracy": accuracies(recipe, files), "latency": {}, "kernels": {}}
    for cpu in ("cortex-a76", "cortex-a72"):
        with lab(cpu=cpu) as machine:
            device = machine.device
            measured = measure(device, [file for file, _ in files.values()], runtime="litert")
            found["latency"][cpu] = {
                name: {"median_s": m.median_s, "low_s": m.low_s, "high_s": m.high_s, "quality": m.quality}
                for name, m in zip(files, measured, strict=True)
            }
            dearest = profile(device, files["unpruned int8"][0], runs=40)
            found["kernels"][cpu] = [[k.name, k.median_s] for k in dearest.kernels]
    found["front"] = {
        cpu: front(found["accuracy"], {name: one["median_s"] for name, one in times.items()})
        for cpu, times in found["latency"].items()
    }
    return found


def front(accuracy: dict[str, float], latency: dict[str, float]) -> list[str]:
    """The files that no other beats in both, from the fastest on."""
    order = sorted(latency, key=lambda name: latency[name])
    return [
        name for place, name in enumerate(order) if all(accuracy[name] > accuracy[faster] for faster in order[:place])
    ]


def accuracies(recipe: Recipe, files: dict[str, tuple[Path, Manifest]]) -> dict[str, float]:
    model = load_from(recipe.model)
    test = open_data(recipe.data, model.spec, seed=recipe.seed).test
    images, labels = (torch.cat(parts).numpy() for parts in zip(*test.batches(500), strict=True))
    return {
        name: top1_accuracy(run_file(LocalDevice(), file, manifest, images).outputs[0], labels)
        for name, (file, manifest) in files.items()
    }


def unpruned(recipe: Recipe, folder: Path) -> dict[str, tuple[Path, Manifest]]:
    """The model as it is, as fp32 and int8 files."""
    if not folder.exists():
        model = load_from(recipe.model)
        splits = open_data(recipe.data, model.spec, seed=recipe.seed)
        images = torch.cat([batch for batch, _ in splits.calibration.batches(64)])
        merged = model.with_module(merge(model.module.eval(), model.example_input()))
        export(merged, folder, ("tflite",), images, int8=True)
    return exported("unpruned", folder)


def exported(name: str, folder: Path) -> dict[str, tuple[Path, Manifest]]:
    return {f"{name} {m.precision}": (folder / m.file, m) for m in read_manifests(folder)}


if __name__ == "__main__":
    main()
