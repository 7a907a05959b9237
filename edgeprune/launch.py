"""The processes that a launcher (`torchrun`, `accelerate launch`) began together, as the environment says."""

from __future__ import annotations

import os

from edgeprune.errors import UsageError


def launched() -> int:
    """How many processes a launcher began, this one among them; 1 without a launcher."""
    return _number("WORLD_SIZE", 1)


def is_main() -> bool:
    """Whether this is the process that writes, tells and measures."""
    return launched() == 1 or _number("RANK", 0) == 0


def require_alone(what: str) -> None:
    """Refuse what no several processes can do together.

    Raises:
        UsageError: a launcher began several.
    """
    if launched() > 1:
        raise UsageError(
            f"{what} cannot be done by {launched()} processes together: training alone can",
            where="WORLD_SIZE",
            hint="do the other stages without a launcher, then: torchrun --nproc-per-node N -m edgeprune tune RUN",
        )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default
