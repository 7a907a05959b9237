"""Per layer: how many channels stayed and how much time that saves."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from edgeprune.report import text
from edgeprune.report.data import LayerRow
from edgeprune.report.figures.canvas import Canvas, Scale, both_widths, padded

FULL = 1160  # px; this figure has the whole width of the page


def layers(rows: Sequence[LayerRow]) -> Markup:
    """Two panels over the layers in order: output channels and estimated time, pale before, filled after."""
    if not rows:
        return Markup("")
    return both_widths(lambda width: _draw(rows, width), wide=FULL)


def _draw(rows: Sequence[LayerRow], width: int) -> Markup:
    timed = any(row.cost_before_s is not None for row in rows)
    left, right = 46, width - 10
    canvas = Canvas(width, 400 if timed else 230)
    _panel(canvas, [(r.width_before, r.width_after, _said(r)) for r in rows], left, right, 34, 178, "output channels")
    if timed:
        cost = [((r.cost_before_s or 0.0) * 1e6, (r.cost_after_s or 0.0) * 1e6, _said(r)) for r in rows]
        _panel(canvas, cost, left, right, 216, 360, "time, \u00b5s (latency table)")
    foot = canvas.height - 12
    canvas.rect(left, foot - 10, 14, 10, "before")
    canvas.text(left + 20, foot, "before", "tick")
    canvas.rect(left + 80, foot - 10, 14, 10, "after s1")
    canvas.text(left + 100, foot, "after", "tick")
    canvas.text(right, foot, f"{len(rows)} layers{', input to output' if width > 400 else ''}", "tick", anchor="end")
    return canvas.svg(_alternative(rows))


def _panel(
    canvas: Canvas,
    bars: Sequence[tuple[float, float, str]],
    left: float,
    right: float,
    top: float,
    bottom: float,
    label: str,
) -> None:
    y = Scale(*padded([v for before, after, _ in bars for v in (before, after)], zero=True), bottom, top)
    canvas.axis_y(y, left, label, right=right)
    slot = (right - left) / len(bars)
    gap = min(3.0, slot * 0.2)
    outline = "before" if slot > 5 else "before thin"  # an outline would cover a bar of few pixels
    for number, (before, after, said) in enumerate(bars):
        x = left + number * slot + gap / 2
        canvas.rect(x, y(before), slot - gap, bottom - y(before), outline, title=said)
        canvas.rect(x, y(after), slot - gap, bottom - y(after), "after s1", title=said)
    canvas.line(left, bottom, right, bottom, "axis")


def _said(row: LayerRow) -> str:
    said = f"{row.name} ({row.operation}): {row.width_before} \u2192 {row.width_after} channels"
    if row.cost_before_s is not None and row.cost_after_s is not None:
        said += f", {text.seconds(row.cost_before_s)} \u2192 {text.seconds(row.cost_after_s)}"
    return said


def _alternative(rows: Sequence[LayerRow]) -> str:
    before, after = (sum(getattr(r, f"width_{side}") for r in rows) for side in ("before", "after"))
    said = f"Output channels of {len(rows)} layers before and after pruning: {before} in all, {after} left"
    costs = [(r.cost_before_s, r.cost_after_s, r) for r in rows]
    saved = sorted(((b - a, r) for b, a, r in costs if b is not None and a is not None), key=lambda pair: -pair[0])
    if saved:
        said += f"; {text.seconds(sum(s for s, _ in saved))} saved by the table, most at " + ", ".join(
            f"{r.name} ({text.seconds(s)})" for s, r in saved[:3]
        )
    return said + ". The table below has every layer."
