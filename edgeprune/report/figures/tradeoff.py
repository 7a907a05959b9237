"""Accuracy against latency, before and after each stage."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from edgeprune.report import text
from edgeprune.report.data import StagePoint
from edgeprune.report.figures.canvas import SHAPES, Canvas, Scale, both_widths, padded


def tradeoff(points: Sequence[StagePoint], *, trail: bool = True) -> Markup:
    """Accuracy (percent) over latency (ms) with 95 % intervals both ways; empty when fewer than two points have both.

    Points are labelled and shaped, not only coloured; with `trail` a dotted line follows the stages in order.
    """
    known = [p for p in points if p.accuracy is not None and p.latency is not None]
    if len(known) < 2:
        return Markup("")
    return both_widths(lambda width: _draw(known, width, trail))


def _draw(points: Sequence[StagePoint], width: int, trail: bool) -> Markup:
    height, left, bottom, top, right = 340, 46, 296, 34, width - 16
    lows, highs = [], []
    for p in points:
        between = p.accuracy_interval or (p.accuracy or 0.0, p.accuracy or 0.0)
        lows.append(between[0] * 100)
        highs.append(between[1] * 100)
    times = [v * 1e3 for p in points if p.latency for v in (p.latency.low_s, p.latency.high_s)]
    x = Scale(*padded([0.0, *times], zero=True), left, right)
    y = Scale(*padded([*lows, *highs], share=0.12), bottom, top)
    canvas = Canvas(width, height)
    canvas.axis_x(x, bottom, "latency, ms (less is better)", top=top)
    canvas.axis_y(y, left, "top-1 accuracy, %", right=right)
    spots = [(x(p.latency.median_s * 1e3), y(p.accuracy * 100)) for p in points if p.latency and p.accuracy is not None]
    if trail:
        canvas.path(spots, "trail")
    labels = _label_rows([spot[1] for spot in spots], [spot[0] for spot in spots])
    for number, (point, (px, py)) in enumerate(zip(points, spots, strict=True)):
        css = f"s{number % 5}"
        canvas.bar_x(py, x(point.latency.low_s * 1e3), x(point.latency.high_s * 1e3), css)  # type: ignore[union-attr]
        canvas.bar_y(px, y(lows[number]), y(highs[number]), css)
        said = f"{point.stage}: {text.accuracy(point)}, {text.latency(point.latency)}"
        canvas.mark(px, py, SHAPES[number % len(SHAPES)], css, title=said)
        anchor, dx = ("end", -11) if px > (left + right) / 2 else ("start", 11)
        canvas.text(px + dx, labels[number], point.stage, "name", anchor=anchor)
    return canvas.svg(
        "Accuracy against latency. "
        + "; ".join(f"{p.stage}: {text.accuracy(p)}, {text.latency(p.latency)}" for p in points)
    )


def _label_rows(ys: Sequence[float], xs: Sequence[float], apart: float = 15.0) -> list[float]:
    """Where labels go so that those of near points do not lie on each other."""
    rows: dict[int, float] = {}
    for index in sorted(range(len(ys)), key=lambda i: ys[i]):
        wanted = ys[index] - 7
        for other, taken in rows.items():
            if abs(xs[other] - xs[index]) < 110 and wanted < taken + apart:
                wanted = max(wanted, taken + apart)
        rows[index] = wanted
    return [rows[index] for index in range(len(ys))]
