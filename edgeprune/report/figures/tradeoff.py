"""Accuracy against latency, before and after each stage."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from edgeprune.report import text
from edgeprune.report.data import StagePoint
from edgeprune.report.figures.canvas import SHAPES, Canvas, Scale, both_widths, padded

NEAR = 26.0  # px; points nearer than this share one label
Spot = tuple[float, float]


def tradeoff(points: Sequence[StagePoint], *, trail: bool = True) -> Markup:
    """The metric over latency (ms) with 95 % intervals both ways; empty when fewer than two points have both.

    Points are numbered and shaped, not only coloured, and named in the legend; with `trail` a dotted line follows
    the model from stage to stage.
    """
    known = [p for p in points if p.accuracy is not None and p.latency is not None]
    if len(known) < 2:
        return Markup("")
    return both_widths(lambda width: _draw(known, width, trail))


def _draw(points: Sequence[StagePoint], width: int, trail: bool) -> Markup:
    left, bottom, top, right = 46, 270, 34, width - 16
    columns = 4 if width > 400 else 2
    rows = -(-len(points) // columns)
    between = [p.accuracy_interval or (p.accuracy or 0.0, p.accuracy or 0.0) for p in points]
    metric = points[0].metric
    scale = metric.scale
    times = [v * 1e3 for p in points if p.latency for v in (p.latency.low_s, p.latency.high_s)]
    x = Scale(*padded([0.0, *times], zero=True), left, right)
    y = Scale(*padded([side * scale for pair in between for side in pair], share=0.12), bottom, top)
    canvas = Canvas(width, bottom + 50 + 20 * rows)
    canvas.axis_x(x, bottom, "latency, ms (less is better)", top=top)
    canvas.axis_y(y, left, metric.axis, right=right)
    spots = [
        (x(p.latency.median_s * 1e3), y(p.accuracy * scale)) for p in points if p.latency and p.accuracy is not None
    ]
    if trail:
        models = [spot for spot, p in zip(spots, points, strict=True) if not p.is_file]  # each follows from the last
        canvas.path(models, "trail")
    for number, (point, (px, py)) in enumerate(zip(points, spots, strict=True)):
        shape, css = _look(number)
        if point.latency is not None:
            canvas.bar_x(py, x(point.latency.low_s * 1e3), x(point.latency.high_s * 1e3), css)
        canvas.bar_y(px, y(between[number][0] * scale), y(between[number][1] * scale), css)
        canvas.mark(px, py, shape, css, title=_said(point))
    for members in _together(spots):
        middle = sum(spots[m][0] for m in members) / len(members)
        above = min(min(spots[m][1] - 7, y(between[m][1] * scale)) for m in members) - 6
        canvas.text(middle, max(12, above), _numbers([m + 1 for m in members]), "name", anchor="middle")
    for number, point in enumerate(points):
        column, row = divmod(number, rows)
        at, base = left + column * (right - left) / columns, bottom + 60 + 20 * row
        canvas.mark(at + 5, base - 4, *_look(number), r=4.5)
        canvas.text(at + 16, base, f"{number + 1} {point.stage}", "tick")
    return canvas.svg(f"{metric.title} against latency. " + "; ".join(_said(p) for p in points))


def _look(number: int) -> tuple[str, str]:
    """Shape and colour of a point; no two of 25 share both."""
    return SHAPES[number % len(SHAPES)], f"s{(number + number // len(SHAPES)) % 5}"


def _said(point: StagePoint) -> str:
    return f"{point.stage}: {text.accuracy(point)}, {text.latency(point.latency)}"


def _together(spots: Sequence[Spot]) -> list[list[int]]:
    """Points in groups that lie on or beside each other, so that their labels do not."""
    groups: list[list[int]] = []
    for index in sorted(range(len(spots)), key=lambda i: spots[i]):
        px, py = spots[index]
        near = (g for g in groups if abs(spots[g[-1]][0] - px) < NEAR and abs(spots[g[-1]][1] - py) < NEAR)
        found = next(near, None)
        if found is None:
            groups.append([index])
        else:
            found.append(index)
    return groups


def _numbers(numbers: Sequence[int]) -> str:
    """`3-6, 9` for 3, 4, 5, 6, 9."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}\u2013{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
