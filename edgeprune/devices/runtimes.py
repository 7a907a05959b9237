"""Which runtime runs a file."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from edgeprune.devices.conditions import ComputeUnits, RuntimeName
from edgeprune.errors import UsageError

RUNTIME_OF: dict[str, RuntimeName] = {
    ".tflite": "litert",
    ".pte": "executorch",
    ".onnx": "onnxruntime",
    ".mlpackage": "coreml",  # a folder
}
RUNTIMES = tuple(dict.fromkeys(RUNTIME_OF.values()))  # those that our runners have
SUFFIX_OF: dict[RuntimeName, str] = {runtime: suffix for suffix, runtime in RUNTIME_OF.items()}


def runtime_of(file: Path) -> RuntimeName:
    """The runtime of an exported file, by its suffix.

    Raises:
        UsageError: there is no such file, or nothing here runs its kind.
    """
    if not (file.is_dir() if file.suffix == ".mlpackage" else file.is_file()):
        raise UsageError("no such file", where=str(file), hint="name exported files")
    if file.suffix not in RUNTIME_OF:
        raise UsageError(
            f"no runtime for {file.suffix or 'a file without suffix'}",
            where=str(file),
            hint=f"files that are run: {', '.join(RUNTIME_OF)}",
        )
    return RUNTIME_OF[file.suffix]


def compute_units_of(text: str) -> ComputeUnits:
    """Core ML's compute units as a user writes them.

    Raises:
        UsageError: there are none of that name.
    """
    for units in get_args(ComputeUnits):
        if text.upper() == units:
            return cast(ComputeUnits, units)
    raise UsageError(f"there are no compute units {text!r}", hint=f"choose among {', '.join(get_args(ComputeUnits))}")
