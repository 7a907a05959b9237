"""Latency samples of the interleaved runs: a strip of dots and a density for each of the two models."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from edgeprune.latency.measurement import Measurement, Ratio
from edgeprune.report import text
from edgeprune.report.figures.canvas import Canvas, Scale, both_widths, padded

MOST_DOTS = 600
BINS = 120


def samples(ratio: Ratio | None) -> Markup:
    """Every sample of original and pruned on one axis (ms), with median and 95 % interval; empty without a ratio."""
    if ratio is None or not ratio.numerator.samples_s or not ratio.denominator.samples_s:
        return Markup("")
    return both_widths(lambda width: _draw(ratio, width))


def _draw(ratio: Ratio, width: int) -> Markup:
    height, left, right, bottom, top = 268, 16, width - 16, 224, 20
    rows = (("original", ratio.denominator, "s0"), ("pruned", ratio.numerator, "s1"))
    every = [v * 1e3 for _, m, _ in rows for v in m.samples_s]
    highest = sorted(every)[min(len(every) - 1, math.ceil(0.995 * len(every)))]
    x = Scale(*padded([0.0, highest], zero=True), left, right)
    canvas = Canvas(width, height)
    canvas.axis_x(x, bottom, "latency of one inference, ms", top=top)
    for number, (name, measurement, css) in enumerate(rows):
        _strip(canvas, x, name, measurement, css, base=top + 78 + number * 96)
    return canvas.svg(
        f"Latency samples, interleaved. Original: {text.latency(ratio.denominator)}; pruned: "
        f"{text.latency(ratio.numerator)}; pruned over original: {text.ratio(ratio)}. {ratio.evidence}"
    )


def _strip(canvas: Canvas, x: Scale, name: str, measurement: Measurement, css: str, base: float) -> None:
    """One model: histogram above its base line, dots below, median with its interval across both."""
    values = [v * 1e3 for v in measurement.samples_s]
    shown = [v for v in values if v <= x.high]
    counts = _histogram(shown, x.low, x.high)
    most = max(counts) or 1
    step = (x.end - x.start) / BINS
    for index, found in enumerate(counts):
        if found:
            tall = 42 * found / most
            canvas.rect(x.start + index * step, base - tall, step, tall, f"density {css}")
    stride = max(1, len(shown) // MOST_DOTS)
    canvas.dots(((x(v), base + 6 + (i * 7) % 13) for i, v in enumerate(shown[::stride])), css)
    low, middle, high = (x(v * 1e3) for v in (measurement.low_s, measurement.median_s, measurement.high_s))
    canvas.rect(low, base - 46, high - low, 68, f"band {css}", title="95 % interval of the median")
    canvas.line(middle, base - 48, middle, base + 22, f"median {css}")
    beyond = len(values) - len(shown)
    said = f"{name}: {text.latency(measurement)}" + (f"; {beyond} samples beyond the axis" if beyond else "")
    anchor, at = ("start", x.start) if canvas.width < 400 else _beside(middle, x)
    canvas.text(at, base - 53, said, "name", anchor=anchor)


def _beside(middle: float, x: Scale) -> tuple[str, float]:
    return ("end", middle + 24) if middle > (x.start + x.end) / 2 else ("start", middle - 24)


def _histogram(values: Sequence[float], low: float, high: float) -> list[int]:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int((value - low) / (high - low) * BINS)))] += 1
    return counts
