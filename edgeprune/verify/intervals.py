"""How far a share of some images can be trusted: 95 % intervals of a share, and of a difference on the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z = 1.959963984540054  # of 95 %, two-sided


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval. Not `founded`: so few of the images count that draws of them held none."""

    value: float
    low: float
    high: float
    founded: bool = True

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def __contains__(self, figure: float) -> bool:
        return self.low <= figure <= self.high


def share_interval(right: float, images: int, *, z: float = Z) -> Interval:
    """Of a share: the score interval (Wilson, JASA 22, 1927). `images` above 0."""
    share = right / images
    scale = 1 + z * z / images
    middle = (share + z * z / (2 * images)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def drop_interval(lost: float, gained: float, images: int) -> Interval:
    """Of a drop of accuracy between two models on the same images (Agresti and Min, Statistics in Medicine 24, 2005).

    `lost` images only the first names rightly, `gained` only the second; the value is (lost - gained) / images. Half an
    image is added to each of the four cells, so that no difference on few images is no certainty.
    """
    lost_, gained_, images_ = lost + 0.5, gained + 0.5, images + 2
    middle = (lost_ - gained_) / images_
    half = Z * math.sqrt(lost_ + gained_ - (lost_ - gained_) ** 2 / images_) / images_
    value = (lost - gained) / images
    return Interval(value, max(-1.0, min(value, middle - half)), min(1.0, max(value, middle + half)))
