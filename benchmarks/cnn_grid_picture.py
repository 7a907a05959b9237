"""The picture of the grid of benchmarks/cnn_methods.py: top-1 against measured latency, for every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnn_picture import NAMES, STYLE
from torch_pruning_peer import PEERS

from edgeprune.report.figures.canvas import SHAPES, Canvas, Scale, padded

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 470, 400, 60, 60, 330
MORE_STYLE = """<style>
.curve { stroke-width: 1.5; fill: none } .original { stroke: #666; stroke-dasharray: 5 4 }
.mark.s0, .cross.s0 { fill: #2a6fbb; stroke: #2a6fbb } .mark.s1 { fill: #c4561d; stroke: #c4561d }
</style>"""


def draw_grid(nets: dict[str, list[dict[str, Any]]], unpruned: dict[str, float], folder: Path) -> None:
    """cnn_grid.svg: a panel for each net, a curve for each method, ours blue, Torch-Pruning's orange."""
    panels = {net: reached for net, rows in nets.items() if (reached := [row for row in rows if "top1" in row])}
    if not panels:
        return
    names = sorted({row["method"] for rows in panels.values() for row in rows}, key=lambda name: (name in PEERS, name))
    canvas = Canvas(WIDTH * len(panels), HEIGHT + 24 * ((len(names) + 2) // 3))
    for number, (net, rows) in enumerate(panels.items()):
        canvas.text(number * WIDTH + LEFT, TOP - 36, f"{net}, {rows[0]['epochs']} epochs", "name")
        _panel(canvas, rows, unpruned[net], names, number * WIDTH)
    for number, name in enumerate(names):
        x, y = LEFT + 300 * (number % 3), HEIGHT + 24 * (number // 3)
        canvas.mark(x, y, *_look(name, names), r=5)
        canvas.text(x + 14, y + 4, NAMES.get(name, name))
    picture = str(canvas.svg("Top-1 against measured latency for every method."))
    first = picture.index(">") + 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cnn_grid.svg").write_text(picture[:first] + STYLE + MORE_STYLE + picture[first:] + "\n")


def _panel(canvas: Canvas, rows: list[dict[str, Any]], unpruned: float, names: list[str], start: int) -> None:
    left, right = start + LEFT, start + WIDTH - 20
    x = Scale(*padded([row["measured_share"] for row in rows]), left, right)
    tops = [100 * row["top1"] for row in rows]
    y = Scale(*padded([*tops, 100 * unpruned]), BOTTOM, TOP)
    canvas.axis_x(x, BOTTOM, "measured latency / original's", top=TOP)
    canvas.axis_y(y, left, "top-1, %", right=right)
    canvas.line(left, y(100 * unpruned), right, y(100 * unpruned), "original")
    canvas.text(left + 4, y(100 * unpruned) - 5, "unpruned", "tick")
    for name in names:
        mine = sorted((row["measured_share"], 100 * row["top1"]) for row in rows if row["method"] == name)
        shape, css = _look(name, names)
        canvas.path([(x(share), y(top)) for share, top in mine], f"curve {css}")
        for share, top in mine:
            canvas.mark(x(share), y(top), shape, css, title=f"{name}: {top:.2f} % at {share:.3f}x", r=5)


def _look(name: str, names: list[str]) -> tuple[str, str]:
    """Shape and colour of a method's marks."""
    same = [other for other in names if (other in PEERS) == (name in PEERS)]
    return SHAPES[same.index(name) % len(SHAPES)], "s1" if name in PEERS else "s0"
