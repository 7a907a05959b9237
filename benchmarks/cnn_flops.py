"""ResNet-56 on CIFAR-10 with 60 % of its multiply-accumulates gone: the comparison that REPrune's paper reports.

    python benchmarks/cnn_flops.py --data ../shared/data --cache .cache/bench --epochs 30

Its author's weights (93.40 %), pruned to 0.4 of the MACs as counted (no device), and trained for --epochs by the loop
of cnn_methods.py. Top-1 on the 10,000 test images. Writes every row of the cache to benchmarks/results/cnn_flops.json;
the run resumes. `--choose` stops before the training, so that a machine with a GPU can do it (as in cnn_methods.py).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cnn_methods import OURS, folder_of, ours, pruned, recipe_for
from common import ROOT, cifar10_npz, keep_row, write_result

NET, TARGET = "resnet56", "50.2MMACs"  # of 125.5 M


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--methods", nargs="*", choices=OURS, default=["reprune"])
    parser.add_argument("--choose", action="store_true", help="prune, and stop before the training")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    npz, root = cifar10_npz(arguments.data, cache), cache / "cnn_flops" / f"{NET}-{arguments.epochs}"
    for name in arguments.methods:
        done = folder_of(root, name).with_suffix(".json")
        recipe = recipe_for(name, NET, arguments.data, npz, TARGET, arguments.epochs)
        if arguments.choose:
            pruned(recipe, folder_of(root, name))
            continue
        if not done.exists():
            done.parent.mkdir(parents=True, exist_ok=True)
            row = ours(recipe, folder_of(root, name), root / "teacher.safetensors")
            keep_row(done, {"method": name, "epochs": arguments.epochs, **row})
        print(json.loads(done.read_text()), flush=True)
    if arguments.choose:
        return
    rows = [json.loads(file.read_text()) for file in sorted(root.parent.glob(f"{NET}-*/*.json"))]
    print(f"wrote {write_result('cnn_flops', {'net': NET, 'target': TARGET, 'rows': rows})}")


if __name__ == "__main__":
    main()
