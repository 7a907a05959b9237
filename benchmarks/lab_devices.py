"""The ARM64 lab as a device: what a measurement costs beside inference, and the native runner beside Python's.

    python benchmarks/lab_devices.py --data ../shared/data --cache .cache/bench

Boots the machine of tests/lab. Parts: `size` (what is pushed once), `overhead` (of one measurement over adb beyond the
inference itself, and 500 probes in one job; without icount, for that is wall time), `runner` (medians of the native
runner and of LiteRT's Python interpreter on the same files under icount), `cpus` (MobileNetV2 at 96 pixels, fp32
and int8, with and without dot product). Under icount a second is a count of instructions: it repeats, and it is not a
phone's latency. Writes benchmarks/results/lab_devices.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, export, imagenet_folders, keep_row, write_result
from lab import lab

from edgeprune.data.open import open_data
from edgeprune.devices.bundle import native_bundle
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.devices.remote import RemoteDevice
from edgeprune.devices.ssh import open_ssh
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.measurement import Measurement
from edgeprune.latency.protocol import measure
from edgeprune.latency.tflite_writer import write_operation
from edgeprune.models.load import load_from
from edgeprune.recipe_file import parse_recipe
from edgeprune.reparam.merge import merge

PARTS = ("size", "overhead", "runner", "cpus")
PROBE = Timing("sequential", 1, False, warm_up_runs=1, warm_up_s=0.0, min_runs=1, min_s=0.0, max_samples=1)
REPEATS = 20
PROBES = 500
PIXELS = 96  # at 224 an inference takes two seconds to emulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    work = {"size": size, "overhead": overhead, "runner": runner, "cpus": cpus}
    done = arguments.cache / "lab_devices.json"
    found: dict[str, Any] = json.loads(done.read_text()) if done.exists() else {}
    for part in arguments.only:
        print(f"== {part} {time.strftime('%H:%M:%S')}", flush=True)
        found[part] = work[part](arguments.data, arguments.cache)
        print(found[part], flush=True)
        keep_row(done, found)
        write_result("lab_devices", found)


def size(*_: Path) -> dict[str, Any]:
    bundle = native_bundle("aarch64")
    return {
        "MB": bundle.size_bytes / 1e6,
        "files_MB": {name: round(path.stat().st_size / 1e6, 3) for name, path in bundle.files.items()},
    }


def overhead(*_: Path) -> dict[str, Any]:
    """Wall time of a job less the runs it timed; one probe a job, then 500 in one."""
    with tempfile.TemporaryDirectory() as scratch, lab(icount=False) as machine:
        device = machine.device
        files = [probe_file(Path(scratch), number) for number in range(PROBES)]
        run_job(device, Job("litert", (Case("0", files[0]),), timing=PROBE))  # the runner goes over
        one = [beside(device, [file]) for file in files[:REPEATS]]
        many = beside(device, files)
    return {
        "one_s": {"median": float(np.median(one)), "p90": float(np.percentile(one, 90)), "repeats": REPEATS},
        f"{PROBES}_in_one_job_s": {"whole": many, "each": many / PROBES},
    }


def probe_file(folder: Path, number: int) -> Path:
    path = folder / f"{number}.tflite"
    write_operation(OpSignature("conv2d", 8 + number % 25, 8 + number // 25, 8, 8, (3, 3)), path)
    return path


def beside(device: RemoteDevice, files: list[Path]) -> float:
    """Seconds of a job beyond the timed runs (their warm-up, as long as they, counts as overhead)."""
    start = time.monotonic()
    result = run_job(device, Job("litert", tuple(Case(str(n), f) for n, f in enumerate(files)), timing=PROBE))
    wall = time.monotonic() - start
    return wall - sum(sum(v.seconds) * v.runs_per_sample for case in result.cases.values() for v in case.visits)


def runner(data: Path, cache: Path) -> dict[str, Any]:
    """Medians of both runners, over ssh, and of the native one over adb, on the same machine under icount."""
    files = mobilenet(data, cache)
    with lab() as machine:
        lanes = {
            "python_ssh": open_ssh("labarm", config=machine.ssh_config, runner="python"),
            "native_ssh": open_ssh("labarm", config=machine.ssh_config, runner="native"),
            "native_adb": machine.device,
        }
        found: dict[str, Any] = {}
        for name, file in files.items():
            measured = {lane: median_of(opened, file) for lane, opened in lanes.items()}
            found[name] = {
                lane: {"median_s": m.median_s, "low_s": m.low_s, "high_s": m.high_s, "quality": m.quality}
                for lane, m in measured.items()
            }
            python = measured["python_ssh"].median_s
            found[name]["native_of_python"] = {
                lane: measured[lane].median_s / python for lane in ("native_ssh", "native_adb")
            }
    return found


def median_of(device: RemoteDevice, file: Path) -> Measurement:
    """Of few runs: nothing drifts there, and each takes seconds to emulate."""
    return measure(device, [file], runtime="litert", protocol="probe")[0]


def cpus(data: Path, cache: Path) -> dict[str, Any]:
    """MobileNetV2 on the two processors of the lab."""
    files = mobilenet(data, cache)
    found: dict[str, Any] = {}
    for cpu in ("cortex-a76", "cortex-a72"):
        with lab(cpu=cpu) as machine:
            times = {name: median_of(machine.device, file) for name, file in files.items()}
        found[cpu] = {name: {"median_s": m.median_s, "quality": m.quality} for name, m in times.items()}
        found[cpu]["int8_of_fp32"] = times["int8"].median_s / times["fp32"].median_s
    return found


def mobilenet(data: Path, cache: Path) -> dict[str, Path]:
    """MobileNetV2 with ImageNet weights as fp32 and int8 .tflite; exported once."""
    folder = cache / f"mobilenetv2_{PIXELS}_tflite"
    files = {precision: folder / f"tflite_{precision}.tflite" for precision in ("fp32", "int8")}
    if not all(file.exists() for file in files.values()):
        recipe = parse_recipe(
            {
                "model": {
                    "name": "mobilenetv2_100",
                    "arguments": {"pad_type": "same", "bn_eps": 1e-3},
                    "input_size": [3, PIXELS, PIXELS],
                    "checkpoint": str((data / "weights" / "mobilenetv2_100_keras_in1k.safetensors").resolve()),
                },
                "data": {
                    "source": str(imagenet_folders(data, cache)),
                    "calibration": "calibration",
                    "test": "test",
                    "validation_images": 0,
                    "calibration_images": 64,
                },
            },
            where="benchmark",
        )
        model = load_from(recipe.model)
        splits = open_data(recipe.data, model.spec, seed=0)
        images = torch.cat([batch for batch, _ in splits.calibration.batches(64)])
        merged = model.with_module(merge(model.module.eval(), model.example_input()))
        for manifest in export(merged, folder, ("tflite",), images, int8=True):
            (folder / manifest.file).replace(files[manifest.precision])
    return files


if __name__ == "__main__":
    main()
