"""Writing a report's three files and reading its JSON back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeprune.errors import RunError
from edgeprune.report.data import ReportData
from edgeprune.report.junit import junit
from edgeprune.report.page import render
from edgeprune.runs import write_atomic


def write_report(data: ReportData, folder: Path) -> Path:
    """Write report.html, report.json and junit.xml, each whole or not at all; returns the page's path.

    All three are made before the first is written, so a failure leaves an older report as it was. The same data
    makes the same bytes.

    Raises:
        EdgePruneError: the folder cannot be written.
    """
    files = {"report.json": to_json(data), "junit.xml": junit(data), "report.html": render([data]).encode("utf-8")}
    for name, content in files.items():
        write_atomic(folder / name, content)
    return folder / "report.html"


def read_report(path: Path) -> ReportData:
    """Read a report back from report.json, or from the folder that holds it.

    Raises:
        RunError: there is no report, or it is not one that this version reads.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(
            f"cannot read the report: {error.strerror or error}",
            where=str(file),
            hint="name the folder or the report.json that `edgeprune run` wrote",
        ) from error
    try:
        return ReportData.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RunError(
            f"not a report: {f'`{key}`: ' if key else ''}{first['msg']}",
            where=str(file),
            hint="write it again with `edgeprune report`",
        ) from error


def to_json(data: ReportData) -> bytes:
    """The data as JSON. Infinite figures (the SQNR of equal outputs) are kept as text: JSON has no number for them."""
    tree = _plain(data.model_dump(mode="python"))
    return json.dumps(tree, indent=1, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def _plain(value: Any) -> Any:
    """The tree with floats that JSON lacks as the words that pydantic reads back."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Path):
        return str(value)
    return value
