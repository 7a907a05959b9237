"""Writing a report's three files; reading its JSON back is beside the data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from edgeprune.report.data import ReportData, read_report
from edgeprune.report.junit import junit
from edgeprune.report.page import render
from edgeprune.runs import write_atomic

__all__ = ["read_report", "to_json", "write_report"]


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
