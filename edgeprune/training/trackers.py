"""The epochs of a training in a tracker of the user's: TensorBoard, or another that accelerate knows."""

from __future__ import annotations

from pathlib import Path

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from edgeprune.errors import EdgePruneError, RecipeError, ToolkitMissing
from edgeprune.recipe import TuneSection
from edgeprune.training.snapshot import EpochRecord


def check_tracker(name: str | None) -> None:
    """Check that there is such a tracker here.

    Raises:
        RecipeError: accelerate knows none of this name.
        ToolkitMissing: its package is not installed.
    """
    known = sorted(str(kind) for kind in LOGGER_TYPE_TO_CLASS)
    if name is not None and name not in known:
        raise RecipeError(
            f"accelerate knows no tracker {name!r}", where="tune.tracker", hint=f"it knows {', '.join(known)}"
        )
    if name is not None and name not in [str(kind) for kind in get_available_trackers()]:
        raise ToolkitMissing(
            f"the tracker {name} is not installed here", where="tune.tracker", hint=f"pip install {name}"
        )


class Tracker:
    """Writes epochs into a folder, as the tracker of a name does.

    Raises:
        RecipeError, ToolkitMissing: see `check_tracker`.
        EdgePruneError: it cannot begin.
    """

    def __init__(self, name: str, folder: Path, settings: TuneSection) -> None:
        check_tracker(name)
        kind = next(made for known, made in LOGGER_TYPE_TO_CLASS.items() if str(known) == name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._tracker = kind("tune", folder) if kind.requires_logging_directory else kind("tune")
            if hasattr(self._tracker, "start"):
                self._tracker.start()
            plain = {k: v for k, v in settings.model_dump().items() if isinstance(v, int | float | str | bool)}
            self._tracker.store_init_configuration(plain)
        except Exception as error:  # a service may be away, a login missing
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise EdgePruneError(
                f"the tracker {name} cannot begin: {lines[0]}", where="tune.tracker", hint="leave tune.tracker out"
            ) from error

    def log(self, record: EpochRecord) -> None:
        """An epoch."""
        values = record.model_dump(exclude={"epoch", "kept"}, exclude_none=True)
        self._tracker.log(values, step=record.epoch)

    def end(self) -> None:
        """Write what is left."""
        self._tracker.finish()
