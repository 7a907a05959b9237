"""How a task's figure is named, told and compared (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """How a metric is named and told.

    Args:
        name: as it is told in verdicts and reports, "top-1 accuracy".
        unit: "share" (told in percent), or what stands behind the figure, as "dB"; empty for a bare number.
        higher_is_better: whether it is; an error is lower.
        drop: how a loss of it is held against limits: in its own units ("absolute"), or as a share of what it was
            ("relative": 30 dB that become 29.7 dB lost 0.01).
    """

    name: str = "top-1 accuracy"
    unit: str = "share"
    higher_is_better: bool = True
    drop: Literal["absolute", "relative"] = "absolute"

    def told(self, value: float) -> str:
        """A figure in words: "91.25 %", "28.3 dB"."""
        return f"{100 * value:.2f} %" if self.unit == "share" else f"{value:.4g} {self.unit}".rstrip()

    @property
    def title(self) -> str:
        """The name as a heading begins."""
        return self.name[0].upper() + self.name[1:]

    @property
    def scale(self) -> float:
        """What a figure is drawn and told times: 100 of a share."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def axis(self) -> str:
        """The name with its unit, for an axis."""
        unit = "%" if self.unit == "share" else self.unit
        return f"{self.name}, {unit}" if unit else self.name

    def lost(self, before: float, after: float) -> float:
        """How much is lost from one figure to another; below 0 where it is better after."""
        worse = before - after if self.higher_is_better else after - before
        return worse if self.drop == "absolute" or worse == 0 else worse / abs(before) if before else float("inf")

    def rank(self, value: float) -> float:
        """A number that is greater for a better figure."""
        return value if self.higher_is_better else -value

    def is_better(self, one: float, other: float) -> bool:
        """Whether one figure is better than another."""
        return one > other if self.higher_is_better else one < other


ACCURACY = Metric()
"""A classifier's."""
