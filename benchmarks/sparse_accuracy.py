"""Zeros against fewer channels at equal latency: MobileNetV2 on CIFAR-10 at 96 pixels, timed on the ARM64 lab.

    python benchmarks/cnn_methods.py --data ../shared/data --cache .cache/bench --nets mobilenetv2_symmetric \\
        --epochs 3 --only taylor
    python benchmarks/sparse_accuracy.py --data ../shared/data --cache .cache/bench

The structured net is that of the first command (`--method`), measured on the machine of tests/lab under icount, in
turns with the dense one. The sparse net starts from the same weights and loses as many blocks of two of its 1x1 weights
as take the same latency there (`sparse.target`, found by measuring); then it is trained as long by the same loop:
epochs, batches, rate, distillation. All are padded as PyTorch does, which sparse inference takes
(docs/methods/sparse.md). fp32. Top-1 on the 10,000 test images. `--zeros` trains and times nets with other shares of
zeros too: what sparse inference takes where the accuracy is the same. Writes benchmarks/results/sparse_accuracy.json;
what is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from cnn_methods import OURS, accuracies, folder_of
from cnn_nets import recipe_of
from common import ROOT, Lines, cifar10_npz, keep_row, write_merged, write_result
from lab import lab
from torch_pruning_peer import RememberedTeacher

from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.data.open import open_data
from edgeprune.latency.bench import Bench
from edgeprune.latency.pairs import measure_ratio
from edgeprune.latency.table import LatencyTable
from edgeprune.models.checkpoint import load_state, save_state
from edgeprune.models.load import load_from
from edgeprune.progress import Silent
from edgeprune.recipe import Recipe, SparseSection, Target
from edgeprune.runs import open_run, write_atomic
from edgeprune.search.measured import Goal
from edgeprune.search.zeros import Zeros, zeros_for_latency
from edgeprune.space.weight_masks import magnitude_masks
from edgeprune.sparsity.rewrite import write_sparse
from edgeprune.sparsity.rules import check_sparse
from edgeprune.stages.context import Context
from edgeprune.training.loop import tune

NET, BLOCK = "mobilenetv2_symmetric", 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the data pack")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--method", choices=OURS, default="taylor", help="of the structured net")
    parser.add_argument("--zeros", nargs="*", type=float, default=[], help="other shares of zeros to train and time")
    arguments = parser.parse_args()
    cache = arguments.cache.resolve()
    recipe = recipe_of(NET, arguments.data, cifar10_npz(arguments.data, cache), "0.5x", arguments.epochs)
    root = cache / "cnn_methods" / f"{NET}-0.5x-{arguments.epochs}"
    folder = folder_of(root, arguments.method)
    zeros = found_zeros(recipe, folder, cache / "sparse_accuracy")
    sparse = []
    for share in (zeros.zeros, *arguments.zeros):
        row = trained(recipe, share, root, cache / "sparse_accuracy")
        sparse.append(row | timed(recipe, Path(row.pop("weights"))))
    structured = json.loads(folder.with_suffix(".json").read_text()) | {
        "lab_share": float(zeros.target.removesuffix("x"))
    }
    tried = [{"zeros": attempt.zeros, "lab_share": attempt.ratio.ratio} for attempt in zeros.attempts]
    figures = {"structured": structured, "sparse": sparse, "zeros_tried": tried}
    print(f"wrote {write_result('sparse_accuracy', figures)}")


def found_zeros(recipe: Recipe, run: Path, cache: Path) -> Zeros:
    """The zeros that take what the structured net of a run takes on the machine; its widths tell, trained or not."""
    file = cache / f"{run.name}-{recipe.tune.epochs}.json"
    if not file.exists():
        base = load_from(recipe.model)
        with lab() as machine, tempfile.TemporaryDirectory() as scratch, MeasuringExporter("litert") as exporter:
            folder = Path(scratch)
            files = [folder / f"{name}.tflite" for name in ("structured", "original")]
            models = [Context(open_run(run), Silent()).model("prune"), base]
            for model, path in zip(models, files, strict=True):
                write_merged(exporter, model, path)
            ratio = measure_ratio(machine.device, files[0], files[1], runtime="litert", protocol="probe")
            print(f"structured: {ratio.ratio:.3f}x on the machine", flush=True)
            table = LatencyTable(folder / "table.sqlite")
            bench = Bench(machine.device, table, "litert", exporter, 1, "probe", 8, 8, progress=Lines())
            sparse = SparseSection(target=f"{ratio.ratio:.4f}x", block=BLOCK)
            target = Target(value=float(f"{ratio.ratio:.4f}"), unit="x")
            goal = Goal(target, files[1], ratio.denominator.median_s, 0.02, 4, bench)
            found = zeros_for_latency(base, sparse, goal, folder, known={}, keep=lambda _: None)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, found.model_dump_json(indent=1).encode())
    return Zeros.model_validate_json(file.read_bytes())


def trained(recipe: Recipe, zeros: float, structured: Path, cache: Path) -> dict[str, Any]:
    """Accuracy of the net with so many zeros, and where its weights are; trained once."""
    done = cache / f"zeros-{zeros:.4f}-{recipe.tune.epochs}.json"
    if not done.exists():
        done.parent.mkdir(parents=True, exist_ok=True)
        original, student = load_from(recipe.model), load_from(recipe.model)
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
            masks=magnitude_masks(student.module, student.example_input(), zeros=zeros, block=BLOCK),
            progress=Lines(),
        )
        weights = done.with_suffix(".safetensors")
        save_state(weights, result.module)
        dense = accuracies(original.module, splits)
        row = {"zeros": zeros, "block": BLOCK, "epochs": recipe.tune.epochs, "dense_top1": dense["top1"]}
        row |= {**accuracies(result.module, splits), "weights": str(weights)}
        keep_row(done, row)
    row = json.loads(done.read_text())
    print(f"zeros {zeros:.3f}: {row['top1']}", flush=True)
    return row


def timed(recipe: Recipe, weights: Path) -> dict[str, Any]:
    """The trained net's sparse file on the machine, in turns with the dense one."""
    with lab() as machine, tempfile.TemporaryDirectory() as scratch, MeasuringExporter("litert") as exporter:
        dense, zeroed, sparse = (Path(scratch) / f"{name}.tflite" for name in ("dense", "zeroed", "sparse"))
        model = load_from(recipe.model)
        write_merged(exporter, model, dense)
        load_state(model.module, weights)
        write_merged(exporter, model, zeroed)
        write_sparse(zeroed, sparse)
        ratio = measure_ratio(machine.device, sparse, dense, runtime="litert", protocol="probe").ratio
        return {"lab_share": ratio, "rules_hold": check_sparse(sparse).holds}


if __name__ == "__main__":
    main()
