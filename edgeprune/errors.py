"""The errors of EdgePrune: each says what was wrong, where, and what to do, and knows its exit code.

Exit codes (they never depend on the output format): 0 pass, 1 a gate failed, 2 usage or configuration,
3 internal, 4 device unavailable, too noisy, or too few images to tell, so that infrastructure never looks like a
regression.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence


class EdgePruneError(Exception):
    """Base of every error that EdgePrune raises on purpose.

    Args:
        what: one sentence that says what was wrong.
        where: the file, line, layer or device it was found at.
        hint: what to do about it.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__("\n".join(part for part in (self._headline(), self._advice()) if part))

    def _headline(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what

    def _advice(self) -> str:
        return f"  -> {self.hint}" if self.hint else ""


class GateFailed(EdgePruneError):
    """A figure missed its gate."""

    exit_code = 1


class UsageError(EdgePruneError):
    """The caller asked for something that cannot be: a wrong option, recipe, file or model."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe is not valid."""


class ModelError(UsageError):
    """The model, its checkpoint or its plan does not fit."""


class DataError(UsageError):
    """The data set is missing, empty or does not fit the model."""


class TargetError(UsageError):
    """The target cannot be met."""


class ToolkitMissing(UsageError):
    """A format or method needs a package that is not installed."""


class RunError(UsageError):
    """The run folder is corrupt, in use, or not what the command needs."""


class ConversionError(EdgePruneError):
    """A toolkit failed to convert a model (it runs in a child process; this carries what it said)."""

    exit_code = 2  # it is the model that it cannot convert


class TrainingDiverged(UsageError):
    """The loss is no number any more: the learning rate, or another setting, does not go with the model."""


class DeviceError(EdgePruneError):
    """A device is unavailable, was lost, or is too noisy to give an answer."""

    exit_code = 4


class DeviceLost(DeviceError):
    """The connection to a device broke off; the device may come back."""


_WRONG_PATH = (FileExistsError, FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS)


def is_of_a_path(error: OSError) -> bool:
    """Whether a path that the user gave cannot be read or written: that is usage, and no fault of ours."""
    return isinstance(error, _WRONG_PATH) or error.errno in _NO_PATH


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
