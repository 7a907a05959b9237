"""Gates on figures of a sample of images: passed, failed, or undecided where so few images cannot tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeprune.verify.intervals import Interval, drop_interval, share_interval
from edgeprune.verify.limits import ROUNDING, Gate, at_least, at_most, ungated
from edgeprune.verify.verdict import Check

Rights = npt.NDArray[np.bool_]  # (N,), of each test image

_MOST = 10**9


def share_check(name: str, yes: Rights, gate: Gate, *, why: str) -> Check:
    """The share of images for which something holds, against a least share (a gate of None or False: told only)."""
    count, images = int(yes.sum()), len(yes)
    found = share_interval(count, images)
    if gate is None or gate is False:
        check = ungated(name, found.value, gate, "share", why)
    elif found.low >= gate - ROUNDING or found.high < gate - ROUNDING or found.half_width <= 1 - gate:
        check = at_least(name, found.value, gate, unit="share", why=why)
    else:
        enough = _enough(lambda n: share_interval(found.value * n, n).half_width, 1 - gate, images)
        check = _undecided(name, found, gate, images, enough, why)
    return _with_interval(check, found)


def drop_check(name: str, before: Rights, after: Rights, gate: Gate, *, why: str) -> Check:
    """How much fewer of the same images are named rightly, against the most that may be lost."""
    lost, gained, images = int((before & ~after).sum()), int((after & ~before).sum()), len(before)
    found = drop_interval(lost, gained, images)
    if gate is None or gate is False:
        check = ungated(name, found.value, gate, "share", why)
    elif found.high <= gate + ROUNDING or found.low > gate + ROUNDING or found.half_width <= gate:
        check = at_most(name, found.value, gate, unit="share", why=why)
    else:

        def width(n: int) -> float:
            return drop_interval(lost * n / images, gained * n / images, n).half_width

        check = _undecided(name, found, gate, images, _enough(width, gate, images), why)
    return _with_interval(check, found)


def _undecided(name: str, found: Interval, gate: float, images: int, enough: int | None, why: str) -> Check:
    able = f"about {enough} could" if enough is not None else "no number of images can tell a limit of no room"
    said = f"{why}; {images} test images cannot tell whether the limit holds: {able}"
    return Check(name=name, value=found.value, unit="share", limit=gate, outcome="undecided", why=said)


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
