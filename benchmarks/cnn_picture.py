"""The picture of benchmarks/cnn_methods.py: accuracy of every method at equal measured latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch_pruning_peer import PEERS

from edgeprune.report.figures.canvas import Canvas, Scale, padded

WIDTH, LEFT, RIGHT, ROW, TOP = 900, 230, 740, 24, 56
NAMES = {
    "tp_l1": "Torch-Pruning, L1",
    "tp_taylor": "Torch-Pruning, group Taylor",
    "tp_bn_scale": "Torch-Pruning, BN scale",
}
STYLE = """<style>
svg { background: #fff } text { font: 13px system-ui, sans-serif; fill: #444 }
.name { font-weight: 600 } .tick { font-size: 12px }
.grid { stroke: #e4e4e4 } .axis { stroke: #888 } .dots { stroke-width: 11; stroke-linecap: round; fill: none }
.s0 { stroke: #2a6fbb } .s1 { stroke: #c4561d }
</style>"""


def draw(nets: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One row a method, the best first; ours blue, Torch-Pruning's orange. A net and share is a block of rows."""
    blocks = [
        (f"{net} to {share:g}x, {epochs} epochs", rows)
        for net, all_rows in nets.items()
        for share, epochs in sorted({(row["share"], row["epochs"]) for row in all_rows}, reverse=True)
        if (rows := [row for row in all_rows if (row["share"], row["epochs"]) == (share, epochs) and "top1" in row])
    ]
    if not blocks:
        return
    canvas = Canvas(WIDTH, TOP + sum(len(rows) * ROW + 100 for _, rows in blocks))
    top = TOP
    for title, rows in blocks:
        _block(canvas, title, sorted(rows, key=lambda row: -row["top1"]), top)
        top += len(rows) * ROW + 100
    picture = str(canvas.svg("Top-1 of every method at equal measured latency."))
    first = picture.index(">") + 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(picture[:first] + STYLE + picture[first:] + "\n")


def _block(canvas: Canvas, title: str, rows: list[dict[str, Any]], top: int) -> None:
    values = [100 * row["top1"] for row in rows]
    bottom = top + len(rows) * ROW
    x = Scale(*padded(values), LEFT, RIGHT)
    canvas.text(LEFT, top - 26, title, "name")
    canvas.axis_x(
        x,
        bottom,
        "top-1 on 10,000 test images, % (ours blue), at this share of the original's measured latency",
        top=top,
    )
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        y = top + (number + 0.5) * ROW
        canvas.text(LEFT - 12, y + 4, NAMES.get(row["method"], row["method"]), anchor="end")
        canvas.dots([(x(value), y)], "s1" if row["method"] in PEERS else "s0")
        canvas.text(x(value) + 10, y + 4, f"{value:.2f} at {row['measured_share']:.3f}x", "tick")
