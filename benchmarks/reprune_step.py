"""REPrune's step for a layer of 512x512x3x3, half of its filters removed: ours beside scipy's linkage, plain.

    OMP_NUM_THREADS=1 python benchmarks/reprune_step.py

Processor time of one core, the two in turns. Writes benchmarks/results/reprune_step.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from common import write_result
from scipy.cluster.hierarchy import linkage as scipy_linkage
from torch import nn

from edgeprune.methods.reprune import Cover, clusters, cover, cut_height, kernel_sets
from edgeprune.space.find import find_structure

WIDTH, KEEP, REPEATS = 512, 256, 5


def main() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(WIDTH, WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10)
    )
    structure = find_structure(net, torch.randn(1, WIDTH, 8, 8))
    (group,) = structure.groups

    def ours() -> None:
        Cover(net, structure).gone(group.id, KEEP)

    def scipys() -> None:
        (sets,) = kernel_sets(net, group)
        linkages = [scipy_linkage(kernels, "ward") for kernels in sets]
        labels = clusters(linkages, cut_height(linkages, WIDTH - KEEP))
        cover(labels, KEEP, np.random.default_rng(0))

    times: dict[str, list[float]] = {"ours": [], "scipy": []}
    for _ in range(REPEATS):
        times["ours"].append(seconds(ours))
        times["scipy"].append(seconds(scipys))
    ratios = [a / b for a, b in zip(times["ours"], times["scipy"], strict=True)]
    figures = {name: {"median_s": statistics.median(values), "all_s": values} for name, values in times.items()}
    figures["ratio"] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    print(figures)
    print(f"wrote {write_result('reprune_step', figures)}")


def seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
