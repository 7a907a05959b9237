"""The prune loop's steps against the target: what was predicted, what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from edgeprune.report import text
from edgeprune.report.data import Attempt
from edgeprune.report.figures.canvas import Canvas, Scale, both_widths, padded


def attempts(steps: Sequence[Attempt], tolerance: float | None) -> Markup:
    """Predicted (hollow diamond) and measured (circle, interval) latency of each step, with the target's band."""
    if not steps:
        return Markup("")
    return both_widths(lambda width: _draw(steps, tolerance or 0.0, width))


def _draw(steps: Sequence[Attempt], tolerance: float, width: int) -> Markup:
    height, left, right, bottom, top = 300, 46, width - 16, 236, 34
    values = [v for a in steps for v in (a.predicted_s, a.target_s * (1 - tolerance), a.target_s * (1 + tolerance))]
    values += [v for a in steps if (m := a.measurement) for v in (m.low_s, m.high_s)]
    y = Scale(*padded([v * 1e3 for v in values], share=0.12), bottom, top)
    canvas = Canvas(width, height)
    canvas.axis_y(y, left, "latency, ms", right=right)
    canvas.line(left, bottom, right, bottom, "axis")
    slot = (right - left) / len(steps)
    for number, attempt in enumerate(steps):
        start, middle = left + number * slot, left + (number + 0.5) * slot
        low, high = (y(attempt.target_s * 1e3 * (1 + side * tolerance)) for side in (-1, 1))
        canvas.rect(start, high, slot, low - high, "target", title=f"target {text.seconds(attempt.target_s)}")
        canvas.line(start, y(attempt.target_s * 1e3), start + slot, y(attempt.target_s * 1e3), "goal")
        predicted = f"step {attempt.step}, predicted: {text.seconds(attempt.predicted_s)}"
        canvas.mark(middle - 9, y(attempt.predicted_s * 1e3), "diamond", "hollow s3", title=predicted)
        if measured := attempt.measurement:
            canvas.bar_y(middle + 9, y(measured.low_s * 1e3), y(measured.high_s * 1e3), "s1")
            said = f"step {attempt.step}, measured: {text.latency(measured)}"
            canvas.mark(middle + 9, y(measured.median_s * 1e3), "circle", "s1", title=said)
        sign = text.MARK["pass"] if attempt.within_tolerance else text.MARK["fail"]
        word = "step " if slot > 60 else ""
        canvas.text(middle, bottom + 16, f"{word}{attempt.step} {sign}", "tick", anchor="middle")
    _legend(canvas, left, bottom + 42, narrow=width < 400)
    return canvas.svg("Steps of the prune loop. " + "; ".join(_said(a) for a in steps))


def _legend(canvas: Canvas, x: float, y: float, *, narrow: bool) -> None:
    gap = 92 if narrow else 130
    canvas.mark(x + 6, y - 4, "diamond", "hollow s3", r=5)
    canvas.text(x + 18, y, "predicted", "tick")
    canvas.mark(x + gap + 6, y - 4, "circle", "s1", r=5)
    canvas.text(x + gap + 18, y, "measured", "tick")
    canvas.rect(x + 2 * gap, y - 10, 16, 12, "target")
    canvas.text(x + 2 * gap + 22, y, "target, tolerance", "tick")


def _said(attempt: Attempt) -> str:
    within = "within tolerance" if attempt.within_tolerance else "outside the tolerance"
    measured = text.latency(attempt.measurement)
    return (
        f"step {attempt.step}: predicted {text.seconds(attempt.predicted_s)}, measured {measured}, "
        f"target {text.seconds(attempt.target_s)}, {within}"
    )
