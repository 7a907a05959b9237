"""What squeeze-excitation costs on a device beyond its FLOPs: nets as they are, and with every gate removed.

    python benchmarks/gates.py

Each net at its usual size here, in turns with its original, fp32, one thread; with --lab at 64 pixels on the ARM64
machine of tests/lab under icount. Weights are random: latency alone. Writes benchmarks/results/gates.json, with --lab
gates_lab.json.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from common import write_merged, write_result
from lab import lab

import edgeprune
from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.base import Device
from edgeprune.devices.local import LocalDevice
from edgeprune.latency.pairs import measure_ratio
from edgeprune.reparam.merge import merge
from edgeprune.space.branches import remove_branches
from edgeprune.space.find import find_structure

NETS = ("mobilenetv3_large_100", "efficientnet_b0", "fbnetv3_b")
LAB_SIZE = (3, 64, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lab", action="store_true")
    arguments = parser.parse_args()
    with lab() if arguments.lab else nullcontext() as machine, tempfile.TemporaryDirectory() as scratch:
        device = machine.device if machine else LocalDevice()
        rows = [of_net(name, device, Path(scratch), small=arguments.lab) for name in NETS]
    print(f"wrote {write_result('gates_lab' if arguments.lab else 'gates', {'rows': rows})}")


def of_net(name: str, device: Device, folder: Path, *, small: bool) -> dict[str, Any]:
    model = edgeprune.load(name, pretrained=False, **({"input_size": LAB_SIZE} if small else {}))
    example = model.example_input()
    structure = find_structure(model.module, example)
    gates = [branch for branch in structure.branches if branch.gate]
    inside = {layer for gate in gates for layer in gate.layers}
    pruned = remove_branches(model.module, structure, [gate.id for gate in gates])
    files = [folder / f"{name}-{number}.tflite" for number in range(2)]
    with MeasuringExporter("litert") as exporter:
        for module, file in zip((pruned, model.module), files, strict=True):
            write_merged(exporter, model.with_module(module), file)
    measured = measure_ratio(device, *files, runtime="litert", protocol="quick" if small else "standard")
    macs = {layer.name: layer.operation.macs for layer in structure.layers}
    row = {
        "net": name,
        "pixels": example.shape[-1],
        "gates": len(gates),
        "macs_share": sum(macs[name] for name in inside) / sum(macs.values()),
        "parameters_share": 1 - parameters(merge(pruned, example)) / parameters(merge(model.module, example)),
        "original_ms": measured.denominator.median_s * 1e3,
        "without": measured.ratio,
        "interval": [measured.low, measured.high],
        "quality": measured.quality,
    }
    print(row, flush=True)
    return row


def parameters(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


if __name__ == "__main__":
    main()
