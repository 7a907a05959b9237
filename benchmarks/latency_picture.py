"""The picture in docs/latency.md: raw samples as they came, and how the interval of a comparison closes in.

    python benchmarks/latency_picture.py

Above: every sample of one file in one process, in the order in which they were taken, with those marked in which the
scheduler took the core away. Below: two comparisons, look by look: a chain of 100 equal
convolutions with itself, and with one of 103. Everything is measured now, on this machine. Writes docs/latency.svg.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common import ROOT
from latency_compare import LAYER, LAYERS, MORE

from edgeprune.devices.events import Visit
from edgeprune.devices.jobs import Case, Job, Timing, run_job
from edgeprune.devices.local import LocalDevice
from edgeprune.latency.compare import ALPHA, Look, compare
from edgeprune.latency.statistics import sequential_interval
from edgeprune.latency.tflite_writer import write_operation
from edgeprune.report.figures.canvas import Canvas, Scale, padded

WIDTH, LEFT, RIGHT = 900, 64, 880
MARGIN = 0.01
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #444 } .label, .name { font-weight: 600 } .tick { font-size: 12px }
.grid { stroke: #e4e4e4 } .axis { stroke: #888 } .dots { stroke-width: 3; stroke-linecap: round; fill: none }
.s0 { stroke: #2a6fbb } .s1 { stroke: #c4561d } .taken { stroke: #c4561d }
.band { opacity: .18; stroke: none } .band.s0 { fill: #2a6fbb } .band.s1 { fill: #c4561d }
.median { stroke: #111; stroke-width: 1.5; fill: none } .margin { stroke: #888; stroke-dasharray: 5 4 }
</style>"""


def main() -> None:
    device = LocalDevice()
    with tempfile.TemporaryDirectory() as scratch:
        chain, longer = Path(scratch) / "chain.tflite", Path(scratch) / "longer.tflite"
        write_operation(LAYER, chain, times=LAYERS)
        write_operation(LAYER, longer, times=MORE)
        timing = Timing(
            "sequential", 1, True, warm_up_runs=1, warm_up_s=0.0, min_runs=1500, min_s=0.1, max_samples=5000
        )
        (visit,) = run_job(device, Job("litert", (Case("chain", chain),), timing=timing)).cases["chain"].visits
        looks = {
            "with itself": compare(device, chain, chain, margin=MARGIN).looks,
            f"with {MORE - LAYERS} % more work": compare(device, chain, longer, margin=MARGIN).looks,
        }
    canvas = Canvas(WIDTH, 690)
    draw_samples(canvas, visit, top=40, bottom=280)
    draw_looks(canvas, looks, top=370, bottom=640)
    picture = str(canvas.svg("Above: raw latency samples. Below: intervals of two comparisons, look by look."))
    first = picture.index(">") + 1
    (ROOT / "docs" / "latency.svg").write_text(picture[:first] + STYLE + picture[first:] + "\n")
    print("wrote docs/latency.svg")


def draw_samples(canvas: Canvas, visit: Visit, *, top: int, bottom: int) -> None:
    values = 1e3 * np.array(visit.seconds)
    taken = set(visit.preempted)
    highest = float(np.percentile(values, 99.5))
    x, y = Scale(0, len(values), LEFT, RIGHT), Scale(*padded([float(values.min()), highest]), bottom, top)
    canvas.axis_x(x, bottom, "run, in the order in which they came", top=top)
    canvas.axis_y(y, LEFT, "latency of each run, ms (nothing smoothed)", right=RIGHT)
    inside = [i for i, value in enumerate(values) if value <= y.high]
    canvas.dots(((x(i), y(values[i])) for i in inside if i not in taken), "s0")
    canvas.dots(((x(i), y(values[i])) for i in inside if i in taken), "taken")
    middle = float(np.median(values))
    canvas.line(LEFT, y(middle), RIGHT, y(middle), "median")
    said = f"median {middle:.3f} ms, p90 {np.percentile(values, 90):.3f} ms; core taken away in {len(taken)} of "
    said += f"{len(values)} runs (orange); {len(values) - len(inside)} runs beyond the axis"
    canvas.text(RIGHT, bottom + 52, said, anchor="end")


def draw_looks(canvas: Canvas, looks: dict[str, tuple[Look, ...]], *, top: int, bottom: int) -> None:
    most = max(map(len, looks.values()))
    x, y = Scale(1, most, LEFT, RIGHT - 150), Scale(0.96, 1.07, bottom, top)
    canvas.axis_x(x, bottom, "look (one runner process each)", top=top, whole=True)
    canvas.axis_y(y, LEFT, "latency of B over that of A", right=RIGHT - 150)
    for edge in (1 - MARGIN, 1 + MARGIN):
        canvas.line(LEFT, y(edge), RIGHT - 150, y(edge), "margin")
    for number, (name, found) in enumerate(looks.items()):
        css = f"s{number}"
        logs = np.log([look.ratio for look in found])
        for count in range(2, len(logs) + 1):
            low, high = np.exp(np.clip(sequential_interval(logs[:count].tolist(), alpha=ALPHA), -0.1, 0.1))
            low, high = max(float(low), y.low), min(float(high), y.high)
            canvas.rect(x(count) - 5, y(high), 10, y(low) - y(high), f"band {css}")
        canvas.dots(((x(i), y(look.ratio)) for i, look in enumerate(found, 1) if y.low < look.ratio < y.high), css)
        end = float(np.exp(logs.mean()))
        canvas.text(x(len(found)) + 12, y(end) + 4, f"{name}: {end:.3f}", "name")


if __name__ == "__main__":
    main()
