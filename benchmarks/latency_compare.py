"""How often `edgeprune compare` is wrong, and how long it takes: A against itself, and against 3 % more work.

    python benchmarks/latency_compare.py --cache .cache/compare

A/A: a file against itself, again and again; four of five times a chain of equal convolutions, else MobileNetV3 as
exported, whose weights do not fit the cache, and which takes five times as long to be told.
A false alarm is a verdict of faster or slower. Slowdown: a chain of 100 equal convolutions against one of 103, which
is 3 % more of the same work; found is a verdict of slower. The margin is that of the command, 1 %.
Everything resumes: one line of --cache for each comparison. Writes benchmarks/results/latency_compare.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from common import write_result
from scipy.stats import binomtest

import edgeprune
from edgeprune.artifacts.measuring import MeasuringExporter
from edgeprune.devices.local import LocalDevice
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.compare import compare
from edgeprune.latency.tflite_writer import write_operation

LAYER = OpSignature("conv2d", 16, 16, 12, 12, (3, 3), padding=(1, 1), function="relu")
NETWORK = "mobilenetv3_small_050"
LAYERS, MORE = 100, 103


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(".cache/compare"))
    parser.add_argument("--same", type=int, default=200, help="A/A comparisons")
    parser.add_argument("--slower", type=int, default=100, help="comparisons with 3 %% more work")
    parser.add_argument("--margin", type=float, default=0.01)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    chain, longer, network = (arguments.cache / f"{name}.tflite" for name in ("chain", "longer", "network"))
    write_operation(LAYER, chain, times=LAYERS)
    write_operation(LAYER, longer, times=MORE)
    if not network.exists():
        with MeasuringExporter("litert") as exporter:
            exporter.write(edgeprune.load(NETWORK), network)
    same = [(path, path) for path in (*[chain] * 4, network)]
    figures = {
        "slower": measured("slower", [(chain, longer)], arguments.slower, arguments),
        "same": measured("same", same, arguments.same, arguments),
    }
    settings = {"margin": arguments.margin, "layers": LAYERS, "more": MORE, "network": NETWORK}
    path = write_result("latency_compare", {"settings": settings, **figures})
    print(f"wrote {path}")


def measured(name: str, pairs: list[tuple[Path, Path]], count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The comparisons, as many of them as were asked for, those of the cache included."""
    file = arguments.cache / f"{name}.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for number in range(len(done), count):
        a, b = pairs[number % len(pairs)]
        found = compare(LocalDevice(), a, b, margin=arguments.margin, seed=number)
        looks = [round(look.ratio, 5) for look in found.looks]
        record = {"files": f"{a.stem} {b.stem}", "verdict": found.verdict, "ratio": round(found.ratio, 5)}
        record |= {"sure": [found.sure_low, found.sure_high], "seconds": round(found.seconds, 1)}
        record |= {"quality": found.quality, "looks": looks}
        with file.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        done.append(record)
        print(f"{name} {number + 1}/{count}: {found.verdict} {found.ratio:.4f} in {found.seconds:.0f} s", flush=True)
    return summary(done[:count], truth=1.0 if name == "same" else None)


def summary(done: list[dict[str, Any]], *, truth: float | None) -> dict[str, Any]:
    """Counts with their 95 % intervals (Clopper and Pearson), and seconds to the verdict.

    `truth`: the ratio as it is, where that is known (3 % more work need not take exactly 3 % longer).
    """
    verdicts = [record["verdict"] for record in done]
    seconds = sorted(record["seconds"] for record in done)

    def share(chosen: int) -> dict[str, Any]:
        interval = binomtest(chosen, len(done)).proportion_ci(0.95)
        return {"count": chosen, "of": len(done), "low": round(interval.low, 4), "high": round(interval.high, 4)}

    return {
        "slower": share(verdicts.count("slower")),
        "faster": share(verdicts.count("faster")),
        "no difference": share(verdicts.count("no difference")),
        "undecided": share(verdicts.count("undecided")),
        **({} if truth is None else {"interval_missed": share(sum(not covers(r["sure"], truth) for r in done))}),
        "seconds": {
            "median": statistics.median(seconds),
            "p95": seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))],
            "most": seconds[-1],
        },
        "median_ratio": statistics.median(record["ratio"] for record in done),
        "comparisons": done,
    }


def covers(interval: list[float | None], value: float) -> bool:
    low, high = interval
    return (low is None or low <= value) and (high is None or value <= high)


if __name__ == "__main__":
    main()
