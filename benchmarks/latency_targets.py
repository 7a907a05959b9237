"""How near the first answer is to a latency target, and how many corrections it takes: six models, three targets.

    python benchmarks/latency_targets.py --cache .cache/predict

The tables are those of benchmarks/latency_predict.py (made here where they are not there). The pruning loop is the
real one: it chooses a plan that is predicted to meet the target, writes it, measures it beside the unpruned model, and
corrects. Only the loss that it weighs is made up (the sum over groups of the removed share squared), for what counts
here is latency. Everything resumes: one JSON file for each model and target. Writes
benchmarks/results/latency_targets.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import Lines, write_result
from latency_predict import GRANULARITY, MINIMUM, MODELS, share

import edgeprune
from edgeprune.artifacts.export import MeasuringExporter
from edgeprune.devices.local import LocalDevice
from edgeprune.errors import TargetError
from edgeprune.latency.baseline import fill_table, measure_original
from edgeprune.latency.bench import Bench
from edgeprune.latency.table import LatencyTable
from edgeprune.methods.magnitude import score_magnitude
from edgeprune.recipe import Target
from edgeprune.runs import write_atomic
from edgeprune.search.channels import prune_to_latency
from edgeprune.search.measured import Goal
from edgeprune.search.path import PathAllocator
from edgeprune.search.problem import Problem, Shares
from edgeprune.search.pruned import Pruned
from edgeprune.space.decisions import Limits, Space
from edgeprune.space.ranking import ByScore
from edgeprune.space.subnet import Subnet

TARGETS = ("0.7x", "0.5x", "0.35x")
TOLERANCE, CORRECTIONS = 0.03, 3


class MadeUpLoss:
    """The sum over groups of the removed share squared."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = sizes

    def __call__(self, subnet: Subnet) -> float:
        return sum((len(units) / self._sizes[name]) ** 2 for name, units in subnet.units.items()) + len(subnet.dropped)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(".cache/predict"))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    arguments = parser.parse_args()
    rows = [row for name in arguments.models for row in of_model(name, arguments.cache / name)]
    reached = [row for row in rows if "refused" not in row]
    result = {
        "settings": {"tolerance": TOLERANCE, "corrections": CORRECTIONS, "targets": TARGETS},
        "first_answer_within_3_percent": share([abs(row["first_error"]) <= TOLERANCE for row in reached]),
        "within_3_percent": share([abs(row["error"]) <= TOLERANCE for row in reached]),
        "most_corrections": max(row["corrections"] for row in reached),
        "out_of_reach": len(rows) - len(reached),
        "rows": rows,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=1))
    print(f"wrote {write_result('latency_targets', result)}")


def of_model(name: str, folder: Path) -> list[dict[str, Any]]:
    """The model at each target, those of the cache included."""
    files = {target: folder / f"target-{target}.json" for target in TARGETS}
    if not all(file.exists() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        model = edgeprune.load(name)
        with MeasuringExporter("litert") as exporter, tempfile.TemporaryDirectory() as scratch:
            table = LatencyTable(folder / "table.sqlite")
            bench = Bench(LocalDevice(), table, "litert", exporter, 1, "quick", GRANULARITY, MINIMUM, progress=Lines())
            baseline = measure_original(model, Path(scratch), bench)
            predictor = fill_table(model, baseline, bench)
            structure = replace(baseline.structure, layers=predictor.layers)
            ranks = ByScore(score_magnitude(model.module, structure))
            space = Space(structure, Limits(GRANULARITY, MINIMUM, branches=False))
            problem = Problem(space, ranks, predictor.costs, MadeUpLoss(structure.sizes))
            for target, file in files.items():
                if not file.exists():
                    wanted, original_s = float(target.removesuffix("x")), baseline.measurement.median_s
                    goal = Goal(Target.parse(target), baseline.file, original_s, TOLERANCE, CORRECTIONS, bench)
                    shares = Shares(predictor.unpruned_s, wanted, predictor.constant_s, predictor.scale, TOLERANCE)
                    try:
                        pruned = prune_to_latency(
                            *(model, PathAllocator(problem), shares, goal, Path(scratch)),
                            granularity=GRANULARITY,
                            halves=True,
                            known={},
                            keep=lambda _: None,
                        )
                        row = row_of(name, wanted, pruned)
                    except TargetError as error:  # out of reach at these widths: that is an answer, too
                        row = {"model": name, "target": wanted, "refused": str(error)}
                    write_atomic(file, json.dumps(row).encode())
                    print(f"{name} to {target}: {file.read_text()}", flush=True)
    return [json.loads(file.read_text()) for file in files.values()]


def row_of(name: str, target: float, pruned: Pruned) -> dict[str, Any]:
    assert pruned.best is not None
    return {
        "model": name,
        "target": target,
        "attempts": [
            {
                "predicted": round(attempt.place, 4),
                "measured": round(attempt.measured.ratio, 4),
                "interval": [round(attempt.measured.low, 4), round(attempt.measured.high, 4)],
                "quality": attempt.measured.quality,
            }
            for attempt in pruned.attempts
        ],
        "first_error": round(pruned.attempts[0].reached / target - 1, 4),
        "error": round(pruned.best.reached / target - 1, 4),
        "nothing_nearer": pruned.best.nothing_nearer,
        "corrections": len(pruned.attempts) - 1,
    }


if __name__ == "__main__":
    main()
