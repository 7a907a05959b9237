"""A judge that writes down what it judged: an interrupted choice goes on where it was, and nothing is judged twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from edgeprune.resume import Resumption
from edgeprune.search.problem import Judge
from edgeprune.space.subnet import Subnet


class _Judged(NamedTuple):
    key: str  # of what was removed
    loss: float
    seconds: float


class JudgedLosses:
    """What a judge says, asked once for each model; of what was removed the file keeps a digest, a line each.

    Args:
        judge: of the same model, images and precision as when the file was written.
        file: where its answers are kept; it need not be there yet.
    """

    def __init__(self, judge: Judge, file: Path) -> None:
        self._judge = judge
        self._lines = Resumption(file.parent).lines(file.name, _Judged)
        self._known = {judged.key: judged for judged in self._lines.known}
        self.spent_s = 0.0  # by the judge on what was asked here, be it in an earlier process

    def __call__(self, subnet: Subnet) -> float:
        key = subnet.key
        if key not in self._known:
            started = time.monotonic()
            loss = float(self._judge(subnet))
            self._known[key] = _Judged(key, loss, time.monotonic() - started)
            self._lines.add(self._known[key])
        self.spent_s += self._known[key].seconds
        return self._known[key].loss
