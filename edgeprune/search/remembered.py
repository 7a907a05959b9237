"""A judge that writes down what it judged: an interrupted choice goes on where it was, and nothing is judged twice."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import NamedTuple

from edgeprune.errors import RunError
from edgeprune.runs import write_atomic
from edgeprune.search.problem import Judge
from edgeprune.space.subnet import Subnet


class _Judged(NamedTuple):
    loss: float
    seconds: float


class RememberedLosses:
    """What a judge says, asked once for each model; of what was removed the file keeps a digest, a line each.

    Args:
        judge: of the same model, images and precision as when the file was written.
        file: where its answers are kept; it need not be there yet.
    """

    def __init__(self, judge: Judge, file: Path) -> None:
        self._judge, self._file, self._known = judge, file, _read(file)
        self.spent_s = 0.0  # by the judge on what was asked here, be it in an earlier process

    def __call__(self, subnet: Subnet) -> float:
        key = subnet.key
        if key not in self._known:
            started = time.monotonic()
            loss = float(self._judge(subnet))
            self._known[key] = _Judged(loss, time.monotonic() - started)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as lines:
                lines.write(json.dumps([key, *self._known[key]]) + "\n")
        self.spent_s += self._known[key].seconds
        return self._known[key].loss


def _read(file: Path) -> dict[str, _Judged]:
    """What a file holds; a line that a kill left half written goes."""
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_atomic(file, whole.encode())
    try:
        return {key: _Judged(float(loss), float(seconds)) for key, loss, seconds in map(json.loads, whole.splitlines())}
    except (ValueError, TypeError, RecursionError) as error:
        hint = "it was changed by hand: delete it, and what it remembers is judged again"
        raise RunError(f"the record cannot be read: {error}", where=str(file), hint=hint) from error
