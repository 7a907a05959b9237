"""What every figure is drawn with: an SVG canvas, linear scales with round ticks, marks told apart by shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

WIDE, NARROW = 560, 350  # px; a page shows one of the two, by the width of the window
SHAPES = ("circle", "square", "triangle", "diamond", "cross")


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] in the data to [start, end] on the canvas (px)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.start + (value - self.low) / span * (self.end - self.start) if span else self.start

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers inside the range, about `count` of them."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        raw = span / max(1, count)
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next((m for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999), 10)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def padded(values: Iterable[float], *, zero: bool = False, share: float = 0.06) -> tuple[float, float]:
    """The range of the finite values with some air around it; from zero where `zero` is set."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if zero:
        low = min(0.0, low)
    span = (high - low) or abs(high) * 0.1 or 1.0
    return (low if zero and low == 0 else low - span * share), high + span * share


@dataclass
class Canvas:
    """Collects SVG elements; every text that comes from outside is escaped on its way in."""

    width: int
    height: int
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        self.parts.append(f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def rect(self, x: float, y: float, width: float, height: float, css: str, *, title: str = "") -> None:
        size = f'x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{max(0.0, height):.1f}"'
        self.parts.append(f'<rect class="{css}" {size}>{_title(title)}</rect>')

    def text(self, x: float, y: float, text: str, css: str = "", *, anchor: str = "start") -> None:
        self.parts.append(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def path(self, points: Sequence[tuple[float, float]], css: str) -> None:
        if points:
            drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            self.parts.append(f'<path class="{css}" d="M{drawn}"></path>')

    def dots(self, points: Iterable[tuple[float, float]], css: str) -> None:
        """Many small dots as one element."""
        drawn = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
        if drawn:
            self.parts.append(f'<path class="dots {css}" d="{drawn}"/>')

    def mark(self, x: float, y: float, shape: str, css: str, *, title: str = "", r: float = 6) -> None:
        """A point; `shape` is one of SHAPES, so that series differ without colour."""
        body = f'class="mark {css}"'
        match shape:
            case "circle":
                element = f'<circle {body} cx="{x:.1f}" cy="{y:.1f}" r="{r}">'
            case "square":
                element = f'<rect {body} x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}">'
            case "triangle":
                corners = f"{x:.1f},{y - r * 1.2:.1f} {x + r * 1.1:.1f},{y + r:.1f} {x - r * 1.1:.1f},{y + r:.1f}"
                element = f'<polygon {body} points="{corners}">'
            case "diamond":
                k = r * 1.3
                corners = f"{x:.1f},{y - k:.1f} {x + k:.1f},{y:.1f} {x:.1f},{y + k:.1f} {x - k:.1f},{y:.1f}"
                element = f'<polygon {body} points="{corners}">'
            case _:
                drawn = (
                    f"M{x - r:.1f} {y - r:.1f}L{x + r:.1f} {y + r:.1f}M{x + r:.1f} {y - r:.1f}L{x - r:.1f} {y + r:.1f}"
                )
                element = f'<path class="cross {css}" d="{drawn}">'
        tag = element[1 : element.index(" ")]
        self.parts.append(f"{element}{_title(title)}</{tag}>")

    def bar_x(self, y: float, low: float, high: float, css: str) -> None:
        """A horizontal error bar."""
        self.line(low, y, high, y, f"error {css}")
        for x in (low, high):
            self.line(x, y - 4, x, y + 4, f"error {css}")

    def bar_y(self, x: float, low: float, high: float, css: str) -> None:
        """A vertical error bar."""
        self.line(x, low, x, high, f"error {css}")
        for y in (low, high):
            self.line(x - 4, y, x + 4, y, f"error {css}")

    def axis_x(self, scale: Scale, y: float, label: str, *, top: float, whole: bool = False) -> None:
        """Ticks and grid lines of a horizontal axis at `y`, grid up to `top`; `whole` keeps whole numbers only."""
        ticks = scale.ticks(max(3, int((scale.end - scale.start) / 90)))
        ticks = [tick for tick in ticks if not whole or tick == round(tick)]
        form = tick_form(ticks)
        for tick in ticks:
            self.line(scale(tick), y, scale(tick), top, "grid")
            self.text(scale(tick), y + 16, form(tick), "tick", anchor="middle")
        self.line(scale.start, y, scale.end, y, "axis")
        self.text((scale.start + scale.end) / 2, y + 34, label, "label", anchor="middle")

    def axis_y(self, scale: Scale, x: float, label: str, *, right: float) -> None:
        """Ticks and grid lines of a vertical axis at `x`, grid up to `right`; the label lies above the axis."""
        ticks = scale.ticks(max(3, int(abs(scale.start - scale.end) / 50)))
        form = tick_form(ticks)
        for tick in ticks:
            self.line(x, scale(tick), right, scale(tick), "grid")
            self.text(x - 6, scale(tick) + 4, form(tick), "tick", anchor="end")
        self.text(x, min(scale.start, scale.end) - 10, label, "label")

    def svg(self, alternative: str) -> Markup:
        """The finished figure with its text alternative."""
        head = (
            f'<svg viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" '
            f'role="img" aria-label="{escape(alternative)}" xmlns="http://www.w3.org/2000/svg">'
        )
        return Markup(head + "".join(self.parts) + "</svg>")  # every text above went through escape


def tick_form(ticks: Sequence[float]) -> Callable[[float], str]:
    """Formats ticks with just the decimals that their step needs."""
    step = min((b - a for a, b in pairwise(ticks)), default=0.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    if step > 0 and abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1  # steps of 2.5
    return lambda value: f"{value:.{digits}f}" if value else "0"


def both_widths(draw: Callable[[int], Markup], wide: int = WIDE) -> Markup:
    """A figure drawn twice, for wide and for narrow windows: text keeps its size on a phone."""
    return Markup('<div class="wide">{}</div><div class="narrow">{}</div>').format(draw(wide), draw(NARROW))


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
