"""Steps of re-training a small net on a GPU: as they are, recorded as CUDA graphs, and in many processes at once.

    python benchmarks/gpu_step.py --processes 1 12

CIFAR ResNets as wide as they come, batches of 128 random images of 32 x 32, bf16, a teacher whose answers are known
(so is the teacher of cnn_methods.py). A step with the making of its batch, the median of the processes; they share the
GPU through NVIDIA's MPS where that was started before the command. Needs an NVIDIA GPU.
Writes benchmarks/results/gpu_step.json.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from common import ROOT, write_result
from torch import nn

import edgeprune
from edgeprune.data.images import Geometry, array_images
from edgeprune.data.split import Split
from edgeprune.models.spec import Preprocessing
from edgeprune.recipe import TuneSection
from edgeprune.training.trainer import Training

BATCH, IMAGES, SECONDS, NETS = 128, 6400, 6.0, ("resnet20", "resnet56")


class Known(nn.Module):
    """A teacher whose answers cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = nn.Buffer(torch.randn(BATCH, 10))

    def forward(self, _images: torch.Tensor) -> torch.Tensor:
        return self.answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 12])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("error: this machine has no NVIDIA GPU that torch can use")
    spawn, rows = multiprocessing.get_context("spawn"), []
    for count in arguments.processes:
        with ProcessPoolExecutor(count, mp_context=spawn) as pool, spawn.Manager() as manager:
            for net, graphs in itertools.product(NETS, (False, True)):
                ready = manager.Barrier(count)
                took = [pool.submit(step_seconds, net, graphs, ready) for _ in range(count)]
                step_ms = 1000 * statistics.median(seconds.result() for seconds in took)
                row: dict[str, Any] = {"net": net, "cuda_graphs": graphs, "processes": count, "step_ms": step_ms}
                rows.append(row | {"steps_per_s": 1000 * count / step_ms})
                print(rows[-1], flush=True)
    shared = {"gpu": torch.cuda.get_device_name(), "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ}
    print(f"wrote {write_result('gpu_step', shared | {'rows': rows})}")


def step_seconds(net: str, graphs: bool, ready: Any) -> float:
    """Seconds of a step, when all processes train at once."""
    torch.set_num_threads(1)
    settings = TuneSection(precision="bf16", batch_size=BATCH, cuda_graphs=graphs)
    model = edgeprune.load(f"{ROOT / 'examples' / 'cifar_resnet.py'}:{net}", input_size=(3, 32, 32))
    training = Training(model.module, Known(), random_split(model.spec.preprocessing), settings, seed=0)
    training.run_epoch(1)  # libraries are loaded, kernels chosen, the recording made
    ready.wait()
    start, epoch = time.perf_counter(), 1
    while time.perf_counter() - start < SECONDS:
        epoch += 1
        training.run_epoch(epoch)
    return (time.perf_counter() - start) / ((epoch - 1) * training.steps)


def random_split(preprocessing: Preprocessing) -> Split:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    images = array_images(
        pixels, Geometry.of((3, 32, 32), interpolation="bilinear", crop_pct=1.0), memory_limit=1 << 30
    )
    labels = random.integers(0, 10, IMAGES)
    return Split("train", tuple("0123456789"), labels, images, np.arange(IMAGES), preprocessing)


if __name__ == "__main__":
    main()
