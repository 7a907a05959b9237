"""`edgeprune explain`: the first operator whose output on a device differs from this machine's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import DeviceOption, JsonOption, ThreadsOption, show_result


def explain(
    file: Annotated[Path, typer.Argument(help="The file: .tflite.")],
    device: DeviceOption = None,
    threads: ThreadsOption = 1,
    limit_db: Annotated[float | None, typer.Option(help="SQNR below which outputs differ (80; integers 25).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find where a file's answers part from this machine's.

    That is the first operator of FILE whose output on the device differs from what it is here.
    """
    from rich.table import Table

    from edgeprune import api

    found = api.explain(file, device="local" if device is None else device, threads=threads, limit_db=limit_db)
    verdict = (
        f"none of {found.operators} operators differs"
        if found.first is None
        else f"the first of {found.operators} operators that differs: {found.first.index} {found.first.kind}"
    )
    table = Table("", "operator", "output", "SQNR", "", title=f"{found.file} on {found.device}: {verdict}")
    for one in found.looked_at:
        words = "differs" if one.differs else "agrees"
        table.add_row(str(one.index), one.kind, one.tensor, f"{one.sqnr_db:.1f} dB", words)
    show_result(asdict(found), table, as_json=as_json)
