"""Predicted against measured latency: random plans of six models, none of which was measured before.

    python benchmarks/latency_predict.py --cache .cache/predict

Each model is probed into an empty table (timed), which is what `edgeprune probe MODEL` does. Then plans are drawn: each
group keeps a random width of those allowed, at least a quarter, and every second plan loses a random residual branch
too where the model has some. Each plan is predicted from the table, and only then written, and measured in several
processes, in turns with the unpruned model: seconds are compared, and the ratio to that, for what this machine takes
for one and the same file drifts by a tenth within the hour. Beside it stands the sum of operations timed alone (what
the predictor falls back on, and how nn-Meter predicts: a sum over kernels), for the models of --alone.

The cost of probing stands beside one process for each probe: --processes of MobileNetV2's operations, each timed in a
process of its own, times how many there are.

With --lab the device is the ARM64 machine of tests/lab under icount, over adb, for which six nets with small inputs
stand in: an inference takes a hundred times as long there. Nothing drifts there, so each plan is measured once.

With --precision int8 all of that is int8 .tflite files, quantized with seeded random inputs (three models unless
--models names others).

Everything resumes: one JSON file a plan in --cache. With --again the plans that are there are predicted anew from the
tables that are there, and nothing is measured: for a predictor that has changed since. Writes
benchmarks/results/latency_predict.json (or _int8, _lab, _lab_int8).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import ROOT, Lines, write_merged, write_result
from lab import lab
from scipy.stats import binomtest

import edgeprune
from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.base import Device
from edgeprune.devices.jobs import runtime_build
from edgeprune.devices.local import LocalDevice
from edgeprune.latency.baseline import Baseline, fill_table, measure_original
from edgeprune.latency.bench import Bench
from edgeprune.latency.in_place import model_key
from edgeprune.latency.predictor import Predictor, predictor_of
from edgeprune.latency.probes import grid, time_probes
from edgeprune.latency.protocol import measure
from edgeprune.latency.table import LatencyTable
from edgeprune.latency.tflite_writer import Unsupported, write_operation
from edgeprune.models.spec import Model
from edgeprune.recipe import Precision
from edgeprune.runs import write_atomic
from edgeprune.space.branches import remove_branches
from edgeprune.space.cut import remove_units
from edgeprune.space.decisions import Limits, allowed_widths
from edgeprune.space.find import find_structure
from edgeprune.space.units import Branch, Structure

MODELS = (
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "convnext_atto",
    "deit_tiny_patch16_224",
)
INT8_MODELS = ("resnet18", "mobilenetv2_100", "mobilenetv3_large_100")
CIFAR = ROOT / "examples" / "cifar_resnet.py"
LAB_MODELS: dict[str, dict[str, Any]] = {  # name -> what `edgeprune.load` takes
    "resnet20": {"source": f"{CIFAR}:resnet20", "input_size": (3, 32, 32)},
    "resnet56": {"source": f"{CIFAR}:resnet56", "input_size": (3, 32, 32)},
    "mobilenetv2_100": {"source": "mobilenetv2_100", "input_size": (3, 64, 64)},
    "mobilenetv3_large_100": {"source": "mobilenetv3_large_100", "input_size": (3, 64, 64)},
    "efficientnet_b0": {"source": "efficientnet_b0", "input_size": (3, 64, 64)},
    "convnext_atto": {"source": "convnext_atto", "input_size": (3, 64, 64)},
}
PROCESSES = 3  # of which the median counts
GRANULARITY, MINIMUM = 8, 8
SHARE = 0.25  # of its units that a group keeps at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(".cache/predict"))
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--precision", choices=("fp32", "int8"), default="fp32", help="of the files")
    parser.add_argument("--lab", action="store_true", help="on the ARM64 machine of tests/lab")
    parser.add_argument("--again", action="store_true", help="predict what was measured anew; measure nothing")
    parser.add_argument("--plans", type=int, default=10, help="for each model")
    parser.add_argument("--alone", nargs="*", default=["resnet18", "mobilenetv2_100"])
    parser.add_argument("--processes", type=int, default=24, help="operations that are timed one process each")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    int8 = arguments.precision == "int8"
    names = arguments.models or list(INT8_MODELS if int8 else LAB_MODELS if arguments.lab else MODELS)
    with lab() if arguments.lab and not arguments.again else nullcontext() as machine:
        device = machine.device if machine else LocalDevice()
        models = {name: of_model(name, device, arguments) for name in names}
    one_each = arguments.processes and not (arguments.lab or int8)
    rows = [row for found in models.values() for row in found["plans"]]
    result: dict[str, Any] = {
        "settings": {
            "precision": arguments.precision,
            "plans": arguments.plans,
            "processes": PROCESSES,
            "granularity": GRANULARITY,
            "share": SHARE,
        },
        "in place": summary([row["predicted_s"] / row["measured_s"] - 1 for row in rows]),
        "in place, of the unpruned model beside": summary([row["predicted_ratio"] / row["ratio"] - 1 for row in rows]),
        "alone": summary([row["alone_s"] / row["measured_s"] - 1 for row in rows if "alone_s" in row]),
        "in place, same plans": summary(
            [row["predicted_s"] / row["measured_s"] - 1 for row in rows if "alone_s" in row]
        ),
        "interval covers": share([row["low_s"] <= row["measured_s"] <= row["high_s"] for row in rows if row["low_s"]]),
        "one_process_per_probe": one_process_each(arguments) if one_each else None,
        "models": models,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "models"}, indent=1))
    where = f"latency_predict{'_lab' if arguments.lab else ''}{'_int8' if int8 else ''}"
    print(f"wrote {write_result(where, result)}")


def of_model(name: str, device: Device, arguments: argparse.Namespace) -> dict[str, Any]:
    """The model's probing and its plans, those of the cache included."""
    folder = arguments.cache / (name if arguments.precision == "fp32" else f"{name}-{arguments.precision}")
    folder.mkdir(exist_ok=True)
    files = [folder / f"plan-{number}.json" for number in range(arguments.plans)]
    loaded = LAB_MODELS[name] if arguments.lab else {"source": name}
    if arguments.again:
        predict_again(edgeprune.load(**loaded), files, folder, name)
    elif not all(file.exists() for file in (folder / "probed.json", *files)):
        with_alone = name in arguments.alone and not arguments.lab
        precision = arguments.precision
        measure_plans(edgeprune.load(**loaded), device, files, folder, name, precision, with_alone=with_alone)
    plans = [json.loads(file.read_text()) for file in files]
    errors = [row["predicted_s"] / row["measured_s"] - 1 for row in plans]
    ratios = [row["predicted_ratio"] / row["ratio"] - 1 for row in plans]
    probed = json.loads((folder / "probed.json").read_text())
    return {**probed, "seconds": summary(errors), "ratio": summary(ratios), "plans": plans}


def predict_again(model: Model, files: list[Path], folder: Path, name: str) -> None:
    """Put into the measured plans what the model's table says of them by now."""
    table = LatencyTable(folder / "table.sqlite")
    (setting,) = table.settings()
    structure = find_structure(model.module, model.example_input())
    predictor = predictor_of(table, setting, structure.layers, structure.sizes)
    probed = json.loads((folder / "probed.json").read_text())
    write_atomic(folder / "probed.json", json.dumps({**probed, "spread": predictor.spread}).encode())
    for number, file in enumerate(files):
        kept, branch = drawn(structure, number, name)
        row = {**json.loads(file.read_text()), **predicted(predictor, structure, kept, branch)}
        write_atomic(file, json.dumps(row).encode())


def measure_plans(
    model: Model,
    device: Device,
    files: list[Path],
    folder: Path,
    name: str,
    precision: Precision,
    *,
    with_alone: bool,
) -> None:
    """Probe the model and measure the plans that are not there yet."""
    with MeasuringExporter("litert", precision) as exporter:
        bench = Bench(
            device=device,
            table=LatencyTable(folder / "table.sqlite"),
            runtime="litert",
            exporter=exporter,
            threads=1,
            protocol="quick" if device.id == "local" else "probe",
            granularity=GRANULARITY,
            minimum=MINIMUM,
            progress=Lines(),
        )
        structure, predictor, alone = probed_model(model, folder, bench, with_alone)
        for number, file in enumerate(files):
            if file.exists():
                continue
            drawing = drawn(structure, number, name)
            row = of_plan(model, structure, predictor, alone, drawing, bench, folder)
            write_atomic(file, json.dumps(row).encode())
            print(
                f"{folder.name} {number}: predicted {1e3 * row['predicted_s']:.3f} ms, measured "
                f"{1e3 * row['measured_s']:.3f} ms ({100 * (row['predicted_s'] / row['measured_s'] - 1):+.1f} %), "
                f"ratio {100 * (row['predicted_ratio'] / row['ratio'] - 1):+.1f} %",
                flush=True,
            )


def probed_model(
    model: Model, folder: Path, bench: Bench, with_alone: bool
) -> tuple[Structure, Predictor, Predictor | None]:
    """Probe, and note what that cost; the predictor from the table, and the one from operations timed alone."""
    file = folder / "probed.json"
    if not file.exists():  # begun, and stopped: what probing costs is asked of an empty table
        bench.table.delete_rows(bench.table.rows())
    begin = time.monotonic()
    baseline = measure_original(model, folder, bench)
    predictor = fill_table(model, baseline, bench)
    seconds = time.monotonic() - begin
    if not file.exists():
        record = {"probing_s": round(seconds, 1), "original_s": baseline.measurement.median_s}
        write_atomic(file, json.dumps({**record, "spread": predictor.spread, "basis": predictor.basis}).encode())
        print(f"{folder.name}: probed in {seconds:.0f} s, {predictor.basis}", flush=True)
    alone = timed_alone(baseline, bench, folder) if with_alone else None
    return baseline.structure, predictor, alone


def timed_alone(baseline: Baseline, bench: Bench, folder: Path) -> Predictor:
    """The predictor from operations timed alone, in a table of its own."""
    table = LatencyTable(folder / "alone.sqlite")
    setting = bench.setting(baseline.measurement.runtime.id)
    for kind, stairs in bench.table.staircases(setting).items():
        table.put_staircase(setting, kind, stairs)
    structure = baseline.structure
    time_probes(replace(bench, table=table), structure.layers, structure.sizes)
    return predictor_of(table, setting, structure.layers, structure.sizes, baseline.measurement)


def of_plan(
    model: Model,
    structure: Structure,
    predictor: Predictor,
    alone: Predictor | None,
    drawing: tuple[dict[str, int], Branch | None],
    bench: Bench,
    folder: Path,
) -> dict[str, Any]:
    """One plan that was drawn: predicted, then written and measured."""
    kept, branch = drawing
    removed = {g.id: tuple(range(kept[g.id], g.size)) for g in structure.groups if kept[g.id] < g.size}
    pruned = remove_branches(remove_units(model.module, structure, removed), structure, [branch.id] if branch else [])
    file = folder / "plan.tflite"
    write_merged(bench.exporter, model.with_module(pruned), file)
    files = [file, folder / "original.tflite"]
    if bench.device.id == "local":
        pairs = [measure(bench.device, files, runtime="litert", protocol="quick") for _ in range(PROCESSES)]
    else:  # nothing drifts there: once, and the unpruned model as it was measured before
        (once,) = measure(bench.device, [file], runtime="litert", protocol=bench.protocol)
        build = runtime_build(bench.device, "litert").id
        known = bench.table.models(bench.setting(build))
        pairs = [[once, known[model_key(structure.layers, structure.sizes)].measurement]]
    file.unlink()
    found, originals = zip(*pairs, strict=True)
    middle = sorted(found, key=lambda one: one.median_s)[len(found) // 2]
    return {
        **predicted(predictor, structure, kept, branch),
        "branch": branch.id if branch else None,
        "measured_s": middle.median_s,
        "measured_each_s": [one.median_s for one in found],
        "original_each_s": [one.median_s for one in originals],
        "ratio": statistics.median(a.median_s / b.median_s for a, b in pairs),
        "quality": middle.quality,
        **({"alone_s": alone.predict(kept, branch.layers if branch else ()).seconds} if alone else {}),
    }


def drawn(structure: Structure, number: int, name: str) -> tuple[dict[str, int], Branch | None]:
    """A random plan of a model: units kept of each group, and the branch that goes."""
    draw = random.Random(f"{name} plan {number}")
    kept = {}
    for group in structure.groups:
        widths = allowed_widths(group, Limits(GRANULARITY, MINIMUM))
        kept[group.id] = draw.choice([width for width in widths if width >= SHARE * group.size] or widths[:1])
    branches = [branch for branch in structure.branches if not branch.gate]
    branch = draw.choice(branches) if number % 2 and branches else None
    if branch:
        kept |= {group: structure.sizes[group] for group in branch.groups}
    return kept, branch


def predicted(
    predictor: Predictor, structure: Structure, kept: dict[str, int], branch: Branch | None
) -> dict[str, Any]:
    """What the table says of a plan."""
    prediction = predictor.predict(kept, branch.layers if branch else ())
    return {
        "predicted_s": prediction.seconds,
        "low_s": prediction.low_s,
        "high_s": prediction.high_s,
        "extrapolates": len(prediction.extrapolates),
        "predicted_ratio": prediction.seconds / predictor.predict(structure.sizes).seconds,
    }


def one_process_each(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds for MobileNetV2's operations, timed alone in one process each, from some of them."""
    file = arguments.cache / "one_process.json"
    if not file.exists():
        model, device = edgeprune.load("mobilenetv2_100"), LocalDevice()
        runtime_build(device, "litert")
        with tempfile.TemporaryDirectory() as scratch, MeasuringExporter("litert") as exporter:
            bench = Bench(
                device,
                LatencyTable(Path(scratch) / "t.sqlite"),
                "litert",
                exporter,
                1,
                "probe",
                GRANULARITY,
                MINIMUM,
            )
            structure = measure_original(model, Path(scratch), bench).structure
            operations = grid(structure.layers, structure.sizes, GRANULARITY, {})
            chosen = random.Random(0).sample(operations, arguments.processes)
            seconds = []
            for operation in chosen:
                begin = time.monotonic()
                try:
                    write_operation(operation, Path(scratch) / "one.tflite")
                except Unsupported:
                    continue
                measure(device, [Path(scratch) / "one.tflite"], runtime="litert", protocol="probe")
                seconds.append(time.monotonic() - begin)
        each = statistics.mean(seconds)
        record = {"operations": len(operations), "timed": len(seconds), "each_s": each}
        write_atomic(file, json.dumps({**record, "all_s": each * len(operations)}).encode())
    return dict(json.loads(file.read_text()))


def summary(errors: list[float]) -> dict[str, Any]:
    """How far predictions were off, relative to what was measured; shares with 95 % intervals (Clopper, Pearson)."""
    if not errors:
        return {"count": 0}
    sizes = sorted(abs(error) for error in errors)
    return {
        "count": len(errors),
        "median_error": round(statistics.median(errors), 4),
        "rms": round(statistics.fmean(size**2 for size in sizes) ** 0.5, 4),
        "worst": round(sizes[-1], 4),
        "within_5_percent": share([size <= 0.05 for size in sizes]),
        "within_10_percent": share([size <= 0.10 for size in sizes]),
    }


def share(hits: list[bool]) -> dict[str, Any]:
    if not hits:
        return {"count": 0, "of": 0}
    interval = binomtest(sum(hits), len(hits)).proportion_ci(0.95)
    return {"count": sum(hits), "of": len(hits), "low": round(interval.low, 4), "high": round(interval.high, 4)}


if __name__ == "__main__":
    main()
