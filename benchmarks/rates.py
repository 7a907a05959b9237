"""At which learning rate pruned models are re-trained best, ours and Torch-Pruning's, from the same prunings.

    python benchmarks/cnn_methods.py --data ../shared/data --cache .cache/bench --nets resnet20 --shares 0.7 \\
        --only taylor tp_l1
    python benchmarks/rates.py --data ../shared/data --cache .cache/bench --net resnet20 --share 0.7 \\
        --methods taylor tp_l1 --rates 0.05 0.015 0.005

The models are those that the first command pruned; each is trained by the one loop at every rate, with everything else
as there: epochs, batches, augmentation, distillation. Top-1 on the 10,000 test images before and after, and on the
validation images after each epoch. One process a core, one thread each; every training resumes. Writes all rows of the
cache to benchmarks/results/rates.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

from cnn_methods import OURS, folder_of
from cnn_nets import NETS, recipe_of
from common import ROOT, Lines, cifar10_npz, keep_row, workers, write_result
from safetensors.torch import load_file
from torch import nn
from torch_pruning_peer import PEERS, RememberedTeacher, resized

from edgeprune.data.open import open_data
from edgeprune.models.load import load_from
from edgeprune.models.spec import Model
from edgeprune.progress import Silent
from edgeprune.runs import open_run
from edgeprune.stages.context import Context
from edgeprune.training.accuracy import top1
from edgeprune.training.loop import tune


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--net", choices=NETS, default="resnet20")
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--from-epochs", type=int, help="of the command that pruned, where it is another number")
    parser.add_argument("--methods", nargs="+", choices=(*OURS, *PEERS), default=["taylor", "tp_l1"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.05, 0.015, 0.005])
    parser.add_argument("--jobs", type=int, help="trainings at once, each with one thread")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    with workers(arguments.jobs) as pool:
        todo = itertools.product(arguments.rates, arguments.methods)
        list(pool.map(partial(trained, arguments, cifar10_npz(arguments.data, cache)), todo))
    rows = [json.loads(file.read_text()) for file in sorted((cache / "rates").glob("*/*.json"))]
    print(f"wrote {write_result('rates', {'rows': rows})}")


def trained(arguments: argparse.Namespace, npz: Path, setting: tuple[float, str]) -> None:
    """One training, unless it is done: at a rate, of what a method pruned."""
    rate, method = setting
    job = f"{arguments.net}-{arguments.share}x"
    root = npz.parent / "cnn_methods" / f"{job}-{arguments.from_epochs or arguments.epochs}"
    kept = folder_of(npz.parent / "rates" / f"{job}-{arguments.epochs}", method)
    done = kept.with_name(f"{kept.name}-{rate}.json")
    if not done.exists():
        recipe = recipe_of(arguments.net, arguments.data, npz, f"{arguments.share}x", arguments.epochs)
        base = load_from(recipe.model)
        splits = open_data(recipe.data, base.spec, seed=recipe.seed)
        teacher = RememberedTeacher(base.module, root / "teacher.safetensors")
        module = pruned(folder_of(root, method), method, base)
        result = tune(
            module,
            teacher,
            splits.train,
            splits.validation,
            recipe.tune.model_copy(update={"lr": rate}),
            seed=recipe.seed,
            snapshots=done.with_suffix(".snapshots"),
            progress=Lines(),
        )
        teacher.save()
        row: dict[str, Any] = {"net": arguments.net, "share": arguments.share, "epochs": arguments.epochs}
        row |= {
            "method": method,
            "rate": rate,
            "began": top1(module, splits.test),
            "top1": top1(result.module, splits.test),
        }
        keep_row(done, {**row, "validation": [record.validation for record in result.history]})
    print(done.read_text(), flush=True)


def pruned(folder: Path, method: str, base: Model) -> nn.Module:
    """What cnn_methods.py pruned, before any training."""
    if method in PEERS:
        return resized(base, load_file(folder / "pruned.safetensors"))
    return Context(open_run(folder), Silent()).model("prune").module


if __name__ == "__main__":
    main()
