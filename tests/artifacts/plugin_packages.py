"""A package of somebody's, installed for a test as far as finding its entry points takes."""

from __future__ import annotations

import textwrap
from pathlib import Path


def install(site: Path, name: str, code: str, entry_points: str) -> None:
    information = site / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(entry_points)
    (site / f"{name}_exporters.py").write_text(textwrap.dedent(code))
