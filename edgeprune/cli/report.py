"""`edgeprune report`: the page of one run, or several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import JsonOption, show_result


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained page for RUNS."""
    from edgeprune.errors import RunError
    from edgeprune.report.data import read_report
    from edgeprune.report.page import render
    from edgeprune.runs import write_atomic

    found = []
    for run in runs:
        path = run / "report" / "report.json"
        if not path.is_file():
            raise RunError("this run has no report yet", where=str(run), hint="finish it: edgeprune run ... --resume")
        found.append(read_report(path))
    write_atomic(out, render(found).encode())
    show_result({"page": str(out)}, f"report: {out}", as_json=as_json)
