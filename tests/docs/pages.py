"""Code that stands in a document, taken out of it, and installed as the package that its reader would have."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def section_of(page: str, section: str) -> str:
    """The text of a section."""
    text = (DOCS / page).read_text()
    body = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert body, f"{page} has no section {section}"
    return body.group(1)


def code_in(page: str, section: str) -> dict[str, str]:
    """File name -> content of each block of code in a section whose first line is a comment with the file's name."""
    blocks = re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", section_of(page, section), re.DOTALL | re.MULTILINE)
    assert blocks, f"{section} has no code"
    return dict(blocks)


def install(files: dict[str, str], name: str, site: Path, patch: pytest.MonkeyPatch) -> None:
    """Install them, found by their pyproject's entry points in this process and in its children."""
    information = site / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]
    entries = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups.items())
    (information / "entry_points.txt").write_text("".join(entries))
    for file, content in files.items():
        (site / file).write_text(content)
    patch.syspath_prepend(str(site))
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))))
