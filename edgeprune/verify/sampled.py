"""Limits on figures of a sample of images: passed, failed, or undecided where so few images cannot tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeprune.verify.intervals import Interval, drop_interval, share_interval
from edgeprune.verify.limits import ROUNDING, Limit, at_least, at_most, unlimited
from edgeprune.verify.verdict import Check

Rights = npt.NDArray[np.bool_]  # (N,), of each test image

_MOST = 10**9


def share_check(name: str, yes: Rights, limit: Limit, *, why: str) -> Check:
    """The share of images for which something holds, against a least share (a limit of None or False: told only)."""
    count, images = int(yes.sum()), len(yes)
    found = share_interval(count, images)
    if limit is None or limit is False:
        check = unlimited(name, found.value, limit, "share", why)
    elif found.low >= limit - ROUNDING or found.high < limit - ROUNDING or found.half_width <= 1 - limit:
        check = at_least(name, found.value, limit, unit="share", why=why)
    else:
        enough = _enough(lambda n: share_interval(found.value * n, n).half_width, 1 - limit, images)
        check = _undecided(name, found, limit, images, _able(enough, 1 - limit), why)
    return _with_interval(check, found)


def drop_check(name: str, before: Rights, after: Rights, limit: Limit, *, why: str) -> Check:
    """How much fewer of the same images are named rightly, against the most that may be lost."""
    lost, gained, images = int((before & ~after).sum()), int((after & ~before).sum()), len(before)
    found = drop_interval(lost, gained, images)
    if limit is None or limit is False:
        check = unlimited(name, found.value, limit, "share", why)
    elif found.high <= limit + ROUNDING or found.low > limit + ROUNDING or found.half_width <= limit:
        check = at_most(name, found.value, limit, unit="share", why=why)
    else:

        def width(n: int) -> float:
            return drop_interval(lost * n / images, gained * n / images, n).half_width

        check = _undecided(name, found, limit, images, _able(_enough(width, limit, images), limit), why)
    return _with_interval(check, found)


def held(check: Check, found: Interval, images: int, *, room: float, fewest: int) -> Check:
    """A check of a figure with an interval that was drawn: undecided where its limit lies within an interval that is
    wider than what the limit leaves room for, or where so few images count that draws tell nothing."""
    if check.limit is None:
        return _with_interval(check, found)
    limit, decided = check.limit, not found.low - ROUNDING <= check.limit <= found.high + ROUNDING
    if images >= fewest and found.founded and (decided or found.half_width <= room or found.low == found.high):
        return _with_interval(check, found)
    undecided = _undecided(check.name, found, limit, images, _able(None, room), check.why, check.unit)
    return _with_interval(undecided, found)


def _able(enough: int | None, room: float) -> str:
    """How many images could tell, in words."""
    if room <= 0:
        return "no number of images can tell a limit of no room"
    return f"about {enough} could" if enough is not None else "more could"


def _undecided(
    name: str, found: Interval, limit: float, images: int, able: str, why: str, unit: str = "share"
) -> Check:
    said = f"{why}; {images} test images cannot tell whether the limit holds: {able}"
    return Check(name=name, value=found.value, unit=unit, limit=limit, outcome="undecided", why=said)


def _with_interval(check: Check, found: Interval) -> Check:
    return check.model_copy(update={"interval": (found.low, found.high)})


def _enough(half_width: Callable[[int], float], room: float, images: int) -> int | None:
    """So many images, alike these, would have an interval narrow enough; None where none would."""
    if room <= 0:
        return None
    most = images
    while half_width(most) > room:
        most *= 2
        if most > _MOST:
            return None
    least = images
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if half_width(middle) <= room else (middle + 1, most)
    step = 10 ** max(0, len(str(most)) - 2)
    return -(-most // step) * step
