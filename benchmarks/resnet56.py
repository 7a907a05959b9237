"""ResNet-56 on CIFAR-10 to a share of its measured latency: EdgePrune beside Torch-Pruning, in one run.

    python benchmarks/resnet56.py --data ../shared/data --cache .cache/bench

All start from the same real weights, are pruned to the same *measured* LiteRT latency on this machine, and are tuned
by the same loop: same epochs, data order, augmentation, distillation from the unpruned net. Everything resumes: what
is in --cache is not done again. Writes benchmarks/results/resnet56.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnn_nets import recipe_of
from common import ROOT, cifar10_npz, keep_row, whole_job, write_result
from torch_pruning_peer import Peer

METHODS = ("edgeprune", "tp_l1", "tp_taylor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--net", default="resnet56")
    parser.add_argument("--only", nargs="*", choices=METHODS, default=METHODS)
    args = parser.parse_args()
    npz = cifar10_npz(args.data, args.cache.resolve())
    recipe = recipe_of(args.net, args.data, npz, f"{args.share}x", args.epochs)
    root = args.cache.resolve() / f"{args.net}-{args.share}x-{args.epochs}"
    jobs: dict[str, Callable[[], dict[str, Any]]] = {"edgeprune": lambda: whole_job(recipe, root / "edgeprune")}
    for name in ("tp_l1", "tp_taylor"):
        jobs[name] = lambda name=name: Peer(name, recipe, root / name).run(args.share)
    for name in args.only:
        done = root / f"{name}.json"
        if not done.exists():
            started = time.time()
            result = jobs[name]()
            keep_row(done, {**result, "seconds": time.time() - started})
    results = {name: json.loads(f.read_text()) for name in METHODS if (f := root / f"{name}.json").exists()}
    settings = {"share": args.share, "epochs": args.epochs, "net": args.net}
    print(write_result(args.net, {"settings": settings, "results": results}), file=sys.stderr)


if __name__ == "__main__":
    main()
