"""Accuracy and loss over the epochs of tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from edgeprune.metric import ACCURACY, Metric
from edgeprune.report import text
from edgeprune.report.data import Epoch
from edgeprune.report.figures.canvas import Canvas, Scale, both_widths, padded


def tuning(
    epochs: Sequence[Epoch], goal: float | None = None, kept: int | None = None, metric: Metric = ACCURACY
) -> Markup:
    """Two panels: accuracy (train, validation) and loss; `goal` draws the original's accuracy, `kept` the
    epoch whose model is the tuned one (0: the one before the first)."""
    if not epochs:
        return Markup("")
    return both_widths(lambda width: _draw(epochs, goal, kept, metric, width))


def _draw(epochs: Sequence[Epoch], goal: float | None, kept: int | None, metric: Metric, width: int) -> Markup:
    left, right = 46, width - 16
    x = Scale(epochs[0].epoch, max(epochs[-1].epoch, epochs[0].epoch + 1), left, right)
    canvas = Canvas(width, 380)
    _accuracy(canvas, epochs, goal, x, metric)
    y = Scale(*padded([e.loss for e in epochs], zero=True), 336, 254)
    canvas.axis_y(y, left, "loss", right=right)
    canvas.axis_x(x, 336, "epoch", top=254, whole=True)
    finite = [e for e in epochs if math.isfinite(e.loss)]
    canvas.path([(x(e.epoch), y(e.loss)) for e in finite], "curve s2")
    for epoch in finite if len(finite) <= 40 else ():
        canvas.mark(x(epoch.epoch), y(epoch.loss), "triangle", "s2", title=_said(epoch, metric), r=3.5)
    chosen = next((e for e in epochs if e.epoch == kept), None)
    if chosen is not None:
        canvas.line(x(chosen.epoch), 34, x(chosen.epoch), 206, "goal")
        at_right = x(chosen.epoch) > (left + right) / 2
        canvas.text(
            x(chosen.epoch) + (-4 if at_right else 4), 200, "kept", "tick", anchor="end" if at_right else "start"
        )
    first, last = epochs[0], epochs[-1]
    ends = f"First: {_said(first, metric)}. Last: {_said(last, metric)}"
    return canvas.svg(f"Tuning over {len(epochs)} epochs. {ends}{_words_of_kept(chosen, kept, metric)}")


def _words_of_kept(chosen: Epoch | None, kept: int | None, metric: Metric) -> str:
    if chosen is not None:
        return f". Kept: {_said(chosen, metric)}"
    return ". Kept: the model before the first" if kept == 0 else ""


def _accuracy(canvas: Canvas, epochs: Sequence[Epoch], goal: float | None, x: Scale, metric: Metric) -> None:
    scale = metric.scale
    series = (
        ("validation", "circle", "s1", [(e, e.validation_accuracy) for e in epochs]),
        ("train", "square", "s3", [(e, e.train_accuracy) for e in epochs]),
    )
    known = [value * scale for _, _, _, line in series for _, value in line if value is not None]
    if goal is not None:
        known.append(goal * scale)
    y = Scale(*padded(known, share=0.1), 206, 34)
    canvas.axis_y(y, x.start, metric.axis, right=x.end)
    if goal is not None:
        canvas.line(x.start, y(goal * scale), x.end, y(goal * scale), "goal")
        canvas.text(x.start + 4, y(goal * scale) - 5, f"original {text.metric_figure(metric, goal)}", "tick")
    at = x.end - 160
    for name, shape, css, line in series:
        spots = [(x(e.epoch), y(value * scale), e) for e, value in line if value is not None]
        if not spots:
            continue
        canvas.path([(px, py) for px, py, _ in spots], f"curve {css}")
        for px, py, epoch in spots if len(spots) <= 40 else ():
            canvas.mark(px, py, shape, css, title=_said(epoch, metric), r=3.5)
        canvas.mark(at + 6, 20, shape, css, r=4)
        canvas.text(at + 16, 24, name, "tick")
        at += 100


def _said(epoch: Epoch, metric: Metric) -> str:
    accuracies = (("train", epoch.train_accuracy), ("validation", epoch.validation_accuracy))
    known = "".join(f"{name} {text.metric_figure(metric, value)}, " for name, value in accuracies if value is not None)
    return f"epoch {epoch.epoch}: loss {epoch.loss:.3f}, {known}lr {epoch.lr:.2g}, {text.seconds(epoch.seconds)}"
