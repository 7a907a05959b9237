"""What every benchmark shares: the data pack, and a result file with the command, the versions and the machine."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import edgeprune
from edgeprune.artifacts.export import export_each
from edgeprune.artifacts.manifest import Manifest
from edgeprune.artifacts.measuring import MeasuringExporter
from edgeprune.models.spec import Model
from edgeprune.pipeline import versions
from edgeprune.recipe import Computing, Recipe
from edgeprune.reparam.merge import merge
from edgeprune.runs import open_run, write_atomic
from edgeprune.stages.prune_record import PruneRecord
from edgeprune.training.precision import running

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def pack_loader(data: Path) -> Any:
    """The data pack's own loader module (`load_pack.py` in the folder given by --data)."""
    sys.path.insert(0, str(data))
    import load_pack  # type: ignore[import-not-found]

    return load_pack


def cifar10_npz(data: Path, cache: Path) -> Path:
    """CIFAR-10 of the data pack as the .npz that EdgePrune reads; made once."""
    file = cache / "cifar10.npz"
    if not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        train_images, train_labels, test_images, test_labels = pack_loader(data).cifar10()
        part = cache / "cifar10.part.npz"
        np.savez(
            part,
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
        )
        part.replace(file)
    return file


def fewer_images(npz: Path, count: int) -> Path:
    """The same data with only the first `count` training images, beside it; made once."""
    file = npz.with_name(f"{npz.stem}-{count}.npz")
    if not file.exists():
        part = file.with_suffix(".part.npz")
        with np.load(npz) as whole:
            cut = {name: whole[name][:count] if name.startswith("train_") else whole[name] for name in whole.files}
        np.savez(part, **cut)
        part.replace(file)
    return file


def imagenet_folders(data: Path, cache: Path) -> Path:
    """The ImageNet samples as class folders (0000..0999): `test` is in1000_eli, `calibration` is in300_aj."""
    from PIL import Image

    root = cache / "imagenet_samples"
    if not (root / "done").exists():
        for split, name in (("test", "in1000_eli"), ("calibration", "in300_aj")):
            images, labels = pack_loader(data).imagenet_samples(name)
            for label in sorted(set(labels.tolist())):
                (root / split / f"{label:04d}").mkdir(parents=True, exist_ok=True)
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                Image.fromarray(image).save(root / split / f"{label:04d}" / f"{number:04d}.png", compress_level=1)
        (root / "done").touch()
    return root


class Lines:
    """Progress as plain lines, for a log."""

    def stage(self, name: str) -> None:
        print(f"== {name} {time.strftime('%H:%M:%S')}", flush=True)

    def say(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def update(self, text: str, done: float, total: float) -> None: ...


def export(model: Model, folder: Path, formats: Sequence[str], images: Tensor, *, int8: bool) -> list[Manifest]:
    """Files of all formats; the images calibrate and are the reference. The first failure is raised."""
    asked = formats if int8 else ()
    done = export_each(
        model, folder, formats=formats, int8=asked, calibration=images if int8 else None, reference_input=images[:8]
    )
    if done.not_written:
        raise done.not_written[0].error
    return list(done.manifests)


def whole_job(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """`edgeprune run`, resumed where it was, and the figures of its verdict."""
    outcome = edgeprune.run(recipe, folder, resume=True, progress=Lines())
    pruned = PruneRecord.model_validate_json((folder / "prune" / "prune.json").read_bytes())
    ratio = pruned.ratio
    return {
        "outcome": outcome.verdict.outcome,
        "test_images": outcome.verdict.test_images,
        "accuracy": outcome.verdict.accuracy,
        "measured_share": ratio.ratio if ratio else None,
        "interval": [ratio.low, ratio.high] if ratio else None,
        "quality": ratio.quality if ratio else None,
        "original_s": ratio.denominator.median_s if ratio else None,
        "attempts": [
            {"predicted_s": a.predicted_s, "measured_share": a.ratio.ratio if a.ratio else None}
            for a in pruned.attempts
        ],
        "macs": {"before": pruned.macs_before, "after": pruned.macs_after},
        "branches_removed": pruned.branches,
        "precision": {"judged_in": pruned.judged_in, "trained_in": trained_in(folder)},
        "checks": {
            f.file: {
                c.name: {"value": c.value, "unit": c.unit, "limit": c.limit, "outcome": c.outcome} for c in f.checks
            }
            for f in outcome.verdict.files
        },
    }


def trained_in(folder: Path) -> str | None:
    """The precision that a run's re-training ran in, whatever its recipe asks for."""
    record = open_run(folder).record("tune")
    return record.result.get("precision") if record else None


def write_merged(exporter: MeasuringExporter, model: Model, file: Path) -> Path:
    """The model merged, as a float32 file to be measured."""
    exporter.write(model.with_module(merge(model.module.eval(), model.example_input())), file)
    return file


def workers(jobs: int | None = None) -> ProcessPoolExecutor:
    """Processes with one thread each (one for each core unless told), which end when their parent is gone."""
    spawn = multiprocessing.get_context("spawn")  # a fork of a process that has used OpenMP hangs
    return ProcessPoolExecutor(jobs or os.cpu_count(), spawn, _work_alone, (os.getpid(),))


def _work_alone(parent: int) -> None:
    torch.set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def machine() -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        "computes": computes(),
    }


def computes() -> dict[str, dict[str, str]]:
    """What runs on this machine where a precision is asked for: by processor, asked -> ran."""
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    asked: tuple[Computing, ...] = ("fp32", "bf16", "fp16")
    return {device.type: {name: running(name, device).precision for name in asked} for device in devices}


def keep_row(file: Path, row: Mapping[str, Any]) -> None:
    """Write down what a part of a benchmark found, whole or not at all: a file that is there is not made again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(row, indent=1).encode())


def write_result(name: str, figures: dict[str, Any]) -> Path:
    """Write benchmarks/results/<name>.json with the command, the commit, the versions and the machine."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    given = list(sys.argv[1:])
    if "--cache" in given:  # where the work lay says nothing about the result
        del given[given.index("--cache") : given.index("--cache") + 2]
    shown = [a if not Path(a).is_absolute() else os.path.relpath(a, ROOT) for a in given]
    result = {
        "command": shlex.join(["python", os.path.relpath(sys.argv[0], ROOT), *shown]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "versions": versions(),
        "machine": machine(),
        **figures,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
