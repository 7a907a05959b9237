"""Zeros against fewer channels at equal accuracy: MobileNetV2 on CIFAR-10 at 96 pixels, timed on the ARM64 lab.

    python benchmarks/cnn_methods.py --data ../shared/data --cache .cache/bench --nets mobilenetv2 --epochs 3
    python benchmarks/sparse_accuracy.py --data ../shared/data --cache .cache/bench

The structured nets are those of the first command. The sparse ones start from the same weights, lose the least blocks
of two of their 1x1 weights, and are trained as long by the same loop: epochs, batches, rate, distillation. They are
padded as PyTorch does, which sparse inference takes (docs/methods/sparse.md). Latency is fp32 on the machine of
tests/lab under icount. Top-1 on the 10,000 test images. Writes benchmarks/results/sparse_accuracy.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from cnn_methods import accuracies
from cnn_nets import lines_of_training, recipe_of
from common import ROOT, cifar10_npz, write_merged, write_result
from lab import lab
from safetensors.torch import save_file
from torch_pruning_peer import RememberedTeacher

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.data.open import open_data
from edgeprune.latency.protocol import measure_ratio
from edgeprune.models.checkpoint import load_state
from edgeprune.models.load import load_from
from edgeprune.models.spec import Model
from edgeprune.pruning.unstructured import magnitude_masks
from edgeprune.recipe import Recipe
from edgeprune.sparsity.rewrite import write_sparse
from edgeprune.sparsity.rules import check_sparse
from edgeprune.training.loop import tune

NET, BLOCK = "mobilenetv2", 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--zeros", type=float, nargs="+", default=[0.8])
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    recipe = recipe_of(NET, arguments.data, cifar10_npz(arguments.data, cache), "0.5x", arguments.epochs)
    structured = cache / "cnn_methods" / f"{NET}-0.5x-{arguments.epochs}"
    rows = [trained(recipe, zeros, structured, cache / "sparse_accuracy") for zeros in arguments.zeros]
    with lab() as machine, tempfile.TemporaryDirectory() as scratch, MeasuringExporter("litert") as exporter:
        for row in rows:
            model = symmetric(recipe)
            dense = write_merged(exporter, model, Path(scratch) / "dense.tflite")
            load_state(model.module, Path(row["weights"]))
            zeroed = write_merged(exporter, model, Path(scratch) / "zeroed.tflite")
            sparse = Path(scratch) / "sparse.tflite"
            write_sparse(zeroed, sparse)
            row["rules"] = check_sparse(sparse).holds
            row["lab_share"] = measure_ratio(machine.device, sparse, dense, runtime="litert", protocol="quick").ratio
            del row["weights"]
            print(row, flush=True)
    print(f"wrote {write_result('sparse_accuracy', {'rows': rows})}")


def trained(recipe: Recipe, zeros: float, structured: Path, cache: Path) -> dict[str, Any]:
    """Accuracy of the net with so many zeros, and where its weights are; trained once."""
    done = cache / f"zeros-{zeros}-{recipe.tune.epochs}.json"
    if not done.exists():
        done.parent.mkdir(parents=True, exist_ok=True)
        original, student = load_from(recipe.model), symmetric(recipe)
        splits = open_data(recipe.data, original.spec, seed=recipe.seed)
        teacher = RememberedTeacher(original.module, structured / "teacher.safetensors")
        result = tune(
            student.module,
            teacher,
            splits.train,
            splits.validation,
            recipe.tune,
            seed=recipe.seed,
            snapshots=done.with_suffix(".snapshots"),
            masks=magnitude_masks(student.module, zeros=zeros, block=BLOCK),
            on_progress=lines_of_training,
        )
        weights = done.with_suffix(".safetensors")
        save_file({name: value.contiguous() for name, value in result.module.state_dict().items()}, weights)
        dense = accuracies(original.module, splits)
        row = {"zeros": zeros, "block": BLOCK, "epochs": recipe.tune.epochs, "dense_top1": dense["top1"]}
        done.write_text(json.dumps({**row, **accuracies(result.module, splits), "weights": str(weights)}, indent=1))
    row = json.loads(done.read_text())
    print(f"zeros {zeros}: {row['top1']}", flush=True)
    return row


def symmetric(recipe: Recipe) -> Model:
    """The dense net with PyTorch's padding."""
    arguments = {name: value for name, value in recipe.model.arguments.items() if name != "pad_type"}
    return load_from(recipe.model.model_copy(update={"arguments": arguments}))


if __name__ == "__main__":
    main()
