"""ResNets pruned *for* the ARM64 machine of tests/lab, to the latency that a peer's net takes there.

    python benchmarks/cnn_for_lab.py --data ../shared/data --cache .cache/bench --nets resnet20

Torch-Pruning's net (`--peer`) is that of cnn_methods.py: pruned to `--share` of the latency on the host, trained for
`--epochs`, and measured on the machine by cnn_lab.py, which both have to be done. Ours is pruned to the latency that
this net takes on the machine: tables, measurements and corrections are of the machine, over adb under icount. It is
trained from the same weights by the same loop: epochs, data order, rate, distillation. Top-1 on the 10,000 test images.
Writes benchmarks/results/cnn_for_lab.json; what is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from cnn_methods import folder_of, ours, pruned
from cnn_nets import NETS, recipe_of
from common import ROOT, cifar10_npz, keep_row, write_result
from lab import lab
from torch_pruning_peer import PEERS

METHODS = ("taylor", "magnitude", "reprune")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--nets", nargs="*", choices=NETS, default=["resnet20"])
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--peer", choices=PEERS, default="tp_l1")
    parser.add_argument("--share", type=float, default=0.5, help="of the latency on the host, that the peer met")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    npz = cifar10_npz(arguments.data, cache)
    os.environ["XDG_CONFIG_HOME"] = str(cache / "cnn_for_lab" / "config")  # devices that the user added stay out of it
    rows = []
    for net in arguments.nets:
        name = f"{net}-{arguments.share}x-{arguments.epochs}"
        peer = json.loads((cache / "cnn_methods" / name / f"{arguments.peer}.json").read_text())
        there = json.loads((cache / "cnn_lab" / name / f"{arguments.peer}.json").read_text())["share"]
        rows.append({"method": arguments.peer, "net": net, "lab_share": there, **kept(peer)})
        for method in arguments.methods:
            root = cache / "cnn_for_lab" / name
            done = folder_of(root, method).with_suffix(".json")
            if not done.exists():
                keep_row(done, row_of(method, net, arguments, npz, root, f"{there:.4f}x"))
            rows.append(json.loads(done.read_text()))
            print(rows[-1], flush=True)
    print(f"wrote {write_result('cnn_for_lab', {'epochs': arguments.epochs, 'rows': rows})}")


def row_of(method: str, net: str, arguments: argparse.Namespace, npz: Path, root: Path, target: str) -> dict[str, Any]:
    """One of our methods to a latency on the machine, trained."""
    started, folder = time.time(), folder_of(root, method)
    with lab(keep=root.parent) as machine:  # its port is the device's name in the run
        recipe = recipe_of(net, arguments.data, npz, target, arguments.epochs, prune={"method": method})
        recipe = recipe.model_copy(
            update={"device": recipe.device.model_copy(update={"id": machine.device.id, "protocol": "quick"})}
        )
        pruned(recipe, folder)
    row = ours(recipe, folder, root / "teacher.safetensors")
    return {
        **{"method": method, "net": net, "lab_share": row.pop("measured_share"), "target": target},
        **{key: row[key] for key in ("attempts", "macs", "branches_removed", "validation", "top1")},
        "seconds": time.time() - started,
    }


def kept(peer: dict[str, Any]) -> dict[str, Any]:
    return {key: peer[key] for key in ("macs", "validation", "top1")}


if __name__ == "__main__":
    main()
