"""`edgeprune report`: the page of one run, or several side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import JsonOption, RichProgress, TrustOption, complete_runs, show_result


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", autocompletion=complete_runs)],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained page for one run or several.

    A verified run that has no report of its own yet gets it.
    """
    from edgeprune.report.data import read_report
    from edgeprune.report.page import render
    from edgeprune.runs import open_run, write_atomic

    found = []
    for run in runs:
        if open_run(run).record("report") is None:
            from edgeprune.api import write_report

            with RichProgress().shown() as progress:
                write_report(run, progress=progress, trust=trust)
        found.append(read_report(run / "report" / "report.json"))
    write_atomic(out, render(found).encode())
    show_result({"page": str(out)}, f"report: {out}", as_json=as_json)
