"""`edgeprune table show|export|import|merge|delete|repair`: the latency table of this user."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli.console import JsonOption, read_precision, show_result

FileOption = Annotated[Path | None, typer.Option("--table", help="Another table than the user's own (SQLite).")]
FingerprintOption = Annotated[str | None, typer.Option(help="Fingerprint of the device, or its beginning.")]
BuildOption = Annotated[str | None, typer.Option(help="Runtime build, or its beginning: litert-2.3.0.")]

PrecisionFilter = Annotated[str | None, typer.Option(help="Of the files that ran: fp32 or int8.")]

table = typer.Typer(
    help="Look at the latency table, carry it over, or delete rows.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@table.command("show")
def show(precision: PrecisionFilter = None, file: FileOption = None, as_json: JsonOption = False) -> None:
    """Say what the table holds.

    There is a line for each device, runtime build, number of threads and precision.
    """
    from rich.table import Column, Table

    from edgeprune.latency.exchange import Filter, summarize
    from edgeprune.latency.table import LatencyTable

    opened = LatencyTable(file, read_only=file is not None)
    found = summarize(opened, Filter(precision=read_precision(precision)))
    names = Column("device", overflow="fold"), Column("build", overflow="fold")
    shown = Table(*names, "threads", "precision", "oper.", "not stable", "unsupp.", "models", "newest")
    for line in found:
        newest = "-" if line.newest is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(line.newest))
        counts = (line.operations, line.noisy, line.unsupported, line.models)
        shown.add_row(line.device, line.build, str(line.threads), line.precision, *map(str, counts), newest)
    title = f"{opened.path}: empty" if not found else shown
    if damaged := opened.damaged():
        typer.secho(f"{damaged} damaged rows are left out: `edgeprune table repair` deletes them", err=True)
    show_result([line.model_dump() for line in found], title, as_json=as_json)


@table.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="The JSON file to write; compressed as .json.xz.")],
    fingerprint: FingerprintOption = None,
    build: BuildOption = None,
    precision: PrecisionFilter = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write rows to a file, for another machine.

    `import` reads it there.
    """
    from edgeprune.latency.exchange import Filter, export_rows
    from edgeprune.latency.table import LatencyTable

    chosen = Filter(device=fingerprint, build=build, precision=read_precision(precision))
    count = export_rows(LatencyTable(file, read_only=file is not None), out, chosen)
    show_result({"rows": count, "file": str(out)}, f"{count} rows in {out}", as_json=as_json)


@table.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A file of `edgeprune table export`.")],
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the rows of an exported file.

    Of two measurements of one thing the newer stays.
    """
    from edgeprune.latency.exchange import import_rows
    from edgeprune.latency.table import LatencyTable

    moved = import_rows(LatencyTable(file), source)
    show_result(moved.model_dump(), f"{moved.taken} rows taken, {moved.older} known as new already", as_json=as_json)


@table.command("merge")
def merge(
    source: Annotated[Path, typer.Argument(help="Another latency table (SQLite).")],
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the rows of another table.

    Of two measurements of one thing the newer stays.
    """
    from edgeprune.latency.exchange import bring
    from edgeprune.latency.table import LatencyTable

    moved = bring(LatencyTable(file), LatencyTable(source, read_only=True).rows())
    show_result(moved.model_dump(), f"{moved.taken} rows taken, {moved.older} known as new already", as_json=as_json)


@table.command("delete")
def delete(
    fingerprint: FingerprintOption = None,
    build: BuildOption = None,
    precision: PrecisionFilter = None,
    older_than: Annotated[float | None, typer.Option(help="Days since the measurement.")] = None,
    noisy: Annotated[bool, typer.Option("--noisy", help="Only what is not stable.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them only.")] = False,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete rows: they are measured anew when needed."""
    from edgeprune.latency.exchange import Filter, forget
    from edgeprune.latency.table import LatencyTable

    before = None if older_than is None else time.time() - 86400 * older_than
    chosen = Filter(device=fingerprint, build=build, precision=read_precision(precision), before=before, noisy=noisy)
    count = forget(LatencyTable(file), chosen, dry_run=dry_run)
    words = f"{count} rows would go" if dry_run else f"{count} rows deleted"
    show_result({"rows": count, "deleted": not dry_run}, words, as_json=as_json)


@table.command("prune", hidden=True)
def prune(
    fingerprint: FingerprintOption = None,
    build: BuildOption = None,
    older_than: Annotated[float | None, typer.Option()] = None,
    noisy: Annotated[bool, typer.Option("--noisy")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """The old name of `delete`."""
    typer.echo("`edgeprune table delete` is the name of this now: nothing is pruned here, rows are deleted", err=True)
    delete(fingerprint, build, None, older_than, noisy, dry_run, file, as_json)


@table.command("repair")
def repair(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is damaged only.")] = False,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete damaged rows.

    Of a damaged file a copy is kept, and the rows that can be read.
    """
    from edgeprune.latency.repair import is_whole
    from edgeprune.latency.repair import repair as repair_table
    from edgeprune.latency.table import LatencyTable

    place = LatencyTable.place(file)
    if dry_run:
        whole = is_whole(place)
        count = LatencyTable(place, read_only=True).damaged() if whole else 0
        words = f"{count} damaged rows would go" if whole else "the file itself is damaged, and would be put aside"
        show_result({"rows": count, "deleted": False, "kept": None}, words, as_json=as_json)
        return
    done = repair_table(file)
    words = f"{done.deleted} damaged rows deleted, {done.left} are left"
    if done.kept is not None:
        words += f"; the damaged file is {done.kept} now"
    kept = str(done.kept) if done.kept else None
    show_result({"rows": done.deleted, "deleted": True, "kept": kept}, words, as_json=as_json)
