"""Sparse inference: MobileNetV2's 1x1 weights set to zero, against dense and against structured pruning, on the lab.

    python benchmarks/sparse.py --data ../shared/data --cache .cache/bench

MobileNetV2 with its ImageNet weights and PyTorch's symmetric padding, fp32, on the ARM64 machine of tests/lab under
icount (its seconds are counts of instructions: they repeat, and are not a phone's). Zeros are the least of the weights
of each 1x1 convolution (batch norms folded), the same share of each, single weights or two or four neighbouring output
channels together. The structured net loses the least filters of every group to the same share. No net is trained: these
are latencies and sizes, not accuracies. Writes benchmarks/results/sparse.json; a file that is there is not exported
again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import torch
from common import ROOT, write_merged, write_result
from lab import lab

from edgeprune.artifacts.measuring import MeasuringExporter
from edgeprune.devices.base import Device
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.latency.presets import Protocol
from edgeprune.latency.protocol import measure
from edgeprune.methods.magnitude import score_magnitude
from edgeprune.models.load import load
from edgeprune.models.spec import Model
from edgeprune.space.cut import remove_units
from edgeprune.space.find import find_structure
from edgeprune.space.weight_masks import least_weights
from edgeprune.sparsity.arbiter import KERNEL
from edgeprune.sparsity.graph import Graph
from edgeprune.sparsity.rewrite import write_sparse
from edgeprune.sparsity.rules import check_sparse, is_1x1

ZEROS = (0.8, 0.9)
BLOCKS = (1, 2, 4)
KEPT = (0.5,)
PROFILED = ("sparse 0.8 in blocks of 1", "sparse 0.8 in blocks of 2")  # a profile takes 21 runs
MULTIPLE = 8  # of kept channels
# Under icount nothing is noise: few runs say as much as many, and each takes seconds to emulate.
FEW = Timing("interleaved", 1, False, warm_up_runs=1, warm_up_s=0.0, min_runs=2, min_s=0.0, max_samples=2)
COUNTED = Protocol("counted", FEW, FEW, least_processes=1, most_processes=1, half_width=0.05)


@dataclass(frozen=True)
class Net:
    """A file to be timed, and what it is."""

    name: str
    file: Path
    facts: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--pixels", type=int, nargs="+", default=(128,))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for pixels in arguments.pixels:
        nets = exported(arguments.data, arguments.cache / f"sparse_{pixels}", pixels)
        with lab() as machine:
            figures[f"{pixels} pixels"] = timed(machine.device, nets)
        write_result("sparse", {"device": "lab, cortex-a76 under icount", "runs": figures})


def exported(data: Path, folder: Path, pixels: int) -> list[Net]:
    """The files: dense, sparse ones, structured ones."""
    model = load(
        "mobilenetv2_100",
        checkpoint=data / "weights" / "mobilenetv2_100_keras_in1k.safetensors",
        arguments={"bn_eps": 1e-3},
        input_size=(3, pixels, pixels),
    )
    nets = []
    with MeasuringExporter("litert") as exporter:
        nets.append(Net("dense", written(exporter, model, folder / "dense.tflite"), {}))
        nets += [sparse_net(nets[0].file, zeros, block) for zeros in ZEROS for block in BLOCKS]
        for kept in KEPT:
            file = folder / f"structured_{kept}.tflite"
            slim = model.with_module(structured(model, kept))
            nets.append(Net(f"structured {kept}", written(exporter, slim, file), {"kept": kept}))
    return nets


def written(exporter: MeasuringExporter, model: Model, file: Path) -> Path:
    if not file.exists():
        write_merged(exporter, model, file)
    return file


def sparse_net(dense: Path, zeros: float, block: int) -> Net:
    """The dense file with the least of its 1x1 weights at zero, stored sparsely."""
    graph = Graph(dense)
    filters = [operator.constants[0] for operator in graph.operators if is_1x1(graph, operator)]
    weights = {str(tensor): torch.from_numpy(graph.value(tensor).transpose(0, 3, 1, 2).copy()) for tensor in filters}
    masks = least_weights(weights, zeros=zeros, scope="uniform", block=block)
    for tensor in filters:
        values = (weights[str(tensor)] * masks[str(tensor)]).numpy().transpose(0, 2, 3, 1)
        buffer = graph.model.subgraphs[0].tensors[tensor].buffer
        graph.model.buffers[buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(graph.model.Pack(builder), b"TFL3")
    holes, file = (dense.with_name(f"{kind}_{zeros}_{block}.tflite") for kind in ("zeros", "sparse"))
    holes.write_bytes(bytes(builder.Output()))
    write_sparse(holes, file)
    found = check_sparse(file)
    facts = {"zeros": found.zeros / found.weights, "block": block, "rules": found.holds, "why_not": found.why_not}
    return Net(f"sparse {zeros} in blocks of {block}", file, facts)


def structured(model: Model, kept: float) -> Any:
    """Without the filters of least magnitude: every group keeps this share."""
    structure = find_structure(model.module, model.example_input())
    scores = score_magnitude(model.module, structure)
    removed = {}
    for group in structure.groups:
        stays = max(MULTIPLE, round(group.size * kept / MULTIPLE) * MULTIPLE)
        removed[group.id] = np.argsort(scores[group.id], kind="stable")[: max(0, group.size - stays)].tolist()
    return remove_units(model.module, structure, removed)


def timed(device: Device, nets: list[Net]) -> dict[str, Any]:
    """Latency of each file over that of the dense one, and what its sparse kernels take."""
    latencies = measure(device, [net.file for net in nets], runtime="litert", protocol=COUNTED)
    rows: dict[str, Any] = {}
    for net, measured in zip(nets, latencies, strict=True):
        rows[net.name] = {
            **net.facts,
            "median_s": measured.median_s,
            "of_dense": measured.median_s / latencies[0].median_s,
            "faster": latencies[0].median_s / measured.median_s,
            "MB": net.file.stat().st_size / 1e6,
            **(kernels(device, net.file) if net.name in PROFILED else {}),
        }
        print(net.name, rows[net.name], flush=True)
    return rows


def kernels(device: Device, file: Path) -> dict[str, Any]:
    found = run_job(device, Job("litert", (Case("0", file),), profile_runs=1)).cases["0"].kernels
    assert found is not None
    seconds = np.array(found.times_us[-1]) * 1e-6
    sparse = np.array([KERNEL in name for name in found.names])
    return {"sparse_kernels": int(sparse.sum()), "sparse_kernels_s": float(seconds[sparse].sum())}


if __name__ == "__main__":
    main()
