"""Figures in words: every number with its unit, and every latency with its interval and quality."""

from __future__ import annotations

import math

from edgeprune.latency.measurement import Measurement, Ratio
from edgeprune.metric import Metric
from edgeprune.models.spec import ModelSpec
from edgeprune.report.data import StagePoint, Standing
from edgeprune.verify.verdict import Between, Check

NONE = "not measured"
STANDING: dict[Standing, str] = {
    "proven": "proven",
    "reference": "reference only",
    "failed": "failed",
    "uncertain": "too noisy to tell",
    "undecided": "too few images to tell",
    "unproven": "not proven",
}
MARK = {
    "proven": "\u2713",
    "pass": "\u2713",
    "reference": "\u25d0",
    "failed": "\u2717",
    "fail": "\u2717",
    "unproven": "?",
    "uncertain": "~",
    "undecided": "~",
    "info": "i",
    "stable": "\u25cf",
    "noisy": "\u25b2",
    "throttled": "\u25a0",
}  # a sign beside every colour: nothing is told by colour alone


def seconds(value: float) -> str:
    """A duration with the unit that keeps it readable: `27.1 us`, `2.71 ms`, `41.0 s`, `3 min 20 s`."""
    scale, unit = _time_unit(value)
    if unit == "s" and math.isfinite(value) and value >= 120:
        minutes, rest = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
    return f"{_three(value * scale)} {unit}"


def interval(low: float, high: float) -> str:
    """`1.33-1.38` in the unit that `seconds` gives the higher end (without the unit)."""
    scale, _ = _time_unit(high)
    return f"{_three(low * scale)}\u2013{_three(high * scale)}"


def latency(measurement: Measurement | None) -> str:
    """`1.35 ms (1.33-1.38), stable`."""
    if measurement is None:
        return NONE
    scale, unit = _time_unit(measurement.median_s)
    low, middle, high = (
        _three(value * scale) for value in (measurement.low_s, measurement.median_s, measurement.high_s)
    )
    return f"{middle} {unit} ({low}\u2013{high}), {measurement.quality}"


def ratio(value: Ratio | None) -> str:
    """`0.498x (0.491-0.505), stable`."""
    if value is None:
        return NONE
    return f"{_three(value.ratio)}\u00d7 ({_three(value.low)}\u2013{_three(value.high)}), {value.quality}"


def speedup(value: Ratio | None) -> str:
    """How many times faster the numerator is: `2.01x (1.98-2.04), stable`."""
    if value is None:
        return NONE
    low, high = speedup_interval(value)
    return f"{speedup_number(value)} ({_three(low)}\u2013{_three(high)}), {value.quality}"


def speedup_number(value: Ratio) -> str:
    return f"{_three(_inverse(value.ratio))}\u00d7"


def speedup_interval(value: Ratio) -> tuple[float, float]:
    return _inverse(value.high), _inverse(value.low)


def speed_claim(value: Ratio | None) -> str:
    """`faster`, `slower`, or `no measurable change` where the interval holds 1; never a claim on a noisy hunch."""
    if value is None:
        return NONE
    if value.low <= 1 <= value.high:
        return "no measurable change"
    return "faster" if value.high < 1 else "slower"


def percent(share: float | None, digits: int = 1) -> str:
    return "not known" if share is None else f"{share * 100:.{digits}f} %"


def change(metric: Metric, before: float, after: float, between: Between | None = None) -> str:
    """What became of a metric, signed, with its interval: `+0.30 points (-0.41 to +1.02)` of a share, else in its unit;
    of a metric whose drops are relative the interval is of the part by which it became better."""
    if metric.unit == "share":
        difference, unit = round((after - before) * 100, 2), "points"
    else:
        difference, unit = float(f"{after - before:.3g}"), metric.unit
    said = f"{_signed(difference)} {unit}".rstrip() if difference else "no change"
    if between is None:
        return f"{said}, interval not known"
    of_it = " % of it" if metric.drop == "relative" else ""
    scale = 100 if of_it or metric.unit == "share" else 1
    low, high = (_signed(side * scale) for side in between)
    return f"{said} ({low} to {high}{of_it})"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")


def accuracy(point: StagePoint | None) -> str:
    """`93.4 % (92.9-93.9, 10000 images)`, of another metric in its unit."""
    if point is None or point.accuracy is None:
        return "not known"
    between, metric = point.accuracy_interval, point.metric
    if between is None:
        return metric_figure(metric, point.accuracy)
    low, high = (f"{side * metric.scale:.1f}" if metric.unit == "share" else _three(side) for side in between)
    return f"{metric_figure(metric, point.accuracy)} ({low}\u2013{high}, {point.images} images)"


def metric_figure(metric: Metric, value: float | None) -> str:
    """`93.4 %`, `28.3 dB`."""
    if value is None or metric.unit == "share":
        return percent(value)
    return f"{_three(value)} {metric.unit}".rstrip()


def outputs(spec: ModelSpec) -> str:
    """What a model answers: `10 classes`, `4 outputs`, `1 output of 3x64x64`."""
    if len(spec.outputs) > 1:
        return f"{len(spec.outputs)} outputs"
    if spec.outputs and len(spec.outputs[0].shape) != 2:
        sides = "\u00d7".join(map(str, spec.outputs[0].shape[1:]))
        return f"1 output of {sides}"
    return f"{spec.num_classes} classes"


def count(value: float | None) -> str:
    """`126 M`, `853 k`, `42`."""
    if value is None:
        return "not known"
    for limit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{_three(value / limit)} {prefix}"
    return f"{value:.0f}"


def size(value: float | None) -> str:
    """Bytes in decimal units: `1.78 MB`."""
    if value is None:
        return "not known"
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= limit:
            return f"{_three(value / limit)} {unit}"
    return f"{value:.0f} bytes"


def figure(value: float, unit: str) -> str:
    """A checked figure in its unit; shares as percent, bytes and seconds in readable units."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return ("\u221e" if value > 0 else "\u2212\u221e") + (f" {unit}" if unit else "")
    match unit:
        case "share" | "fraction":
            said = percent(value, 2)
        case "x":
            said = f"{_three(value)}\u00d7"
        case "bytes" | "byte" | "B":
            said = size(value)
        case "s" | "seconds":
            said = seconds(value)
        case _:
            said = f"{_three(value)} {unit}".rstrip()
    return said


def check_figure(check: Check) -> str:
    """A checked figure with its interval, where it has one: `98.32 % (95 %: 97.01-99.07)`."""
    said = figure(check.value, check.unit)
    if check.interval is None:
        return said
    in_percent = check.unit in ("share", "fraction")
    sides = (f"{100 * side:.2f}" if in_percent else _three(side) for side in check.interval)
    low, high = (side.replace("-", "\u2212") for side in sides)
    return f"{said} (95 %: {low} to {high})"


def check_limit(check: Check) -> str:
    return "no gate" if check.limit is None else figure(check.limit, check.unit)


def _inverse(value: float) -> float:
    return 1 / value if value > 0 else math.inf


def _time_unit(value: float) -> tuple[float, str]:
    if abs(value) >= 1:
        return 1.0, "s"
    return (1e3, "ms") if abs(value) >= 1e-4 else (1e6, "\u00b5s")


def _three(value: float) -> str:
    """Three significant digits, no exponent between a thousandth and ten million."""
    if not math.isfinite(value):
        return "\u221e" if value > 0 else "not a number" if math.isnan(value) else "\u2212\u221e"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -3 or magnitude > 7:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - magnitude)}f}"
