"""Mending a latency table: damaged rows go; of a damaged file what can be read is taken over into a new one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import UsageError
from edgeprune.latency.rows import Row
from edgeprune.latency.table import COLUMNS, SETTING, UNREADABLE, WITHOUT_PRECISION, LatencyTable, row_of


@dataclass(frozen=True)
class Repaired:
    """What was done: damaged rows that are gone, rows that are left, where the damaged file lies now (None: it was
    whole)."""

    deleted: int
    left: int
    kept: Path | None


def repair(path: Path | None = None) -> Repaired:
    """Delete the damaged rows of a table. A file that is damaged itself is put aside, never deleted.

    Raises:
        UsageError: there is no such table, it is of another version, or it cannot be written.
    """
    place = LatencyTable.place(path)
    if not place.is_file():
        raise UsageError("there is no such latency table", where=str(place))
    if is_whole(place):
        table = LatencyTable(place)
        return Repaired(table.delete_damaged(), len(table.rows()), None)
    rows = list(_readable(place))
    part = place.with_name(f"{place.name}.part")
    kept = _free_name(place)
    try:
        part.unlink(missing_ok=True)
        LatencyTable(part).put_rows(rows)
        place.rename(kept)
        part.replace(place)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror}", where=str(place), hint="check the rights") from error
    finally:
        part.unlink(missing_ok=True)
    for name in (f"{place.name}-journal", f"{place.name}-wal", f"{place.name}-shm"):
        place.with_name(name).unlink(missing_ok=True)  # of the file that was put aside
    return Repaired(0, len(rows), kept)


def is_whole(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with a file, and it has the tables of a latency table."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
                return False
            for kind, columns in COLUMNS.items():
                connection.execute(f"SELECT {', '.join((*_setting(connection), *columns))} FROM {kind} LIMIT 1")
    except UNREADABLE:
        return False
    return True


def _readable(path: Path) -> Iterator[Row]:
    """The sound rows of a damaged file, as far as they can be read from either end."""
    for kind, columns in COLUMNS.items():
        found: dict[tuple[object, ...], Row] = {}
        for order in ("ASC", "DESC"):
            with (
                suppress(*UNREADABLE),
                closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as it,
            ):
                it.text_factory = lambda content: content.decode(errors="replace")
                select = f"SELECT {', '.join((*_setting(it), *columns))} FROM {kind} ORDER BY rowid {order}"
                for values in it.execute(select):
                    row = row_of(kind, values)
                    if row is not None:
                        found[row.place] = row
        yield from found.values()


def _setting(connection: sqlite3.Connection) -> tuple[str, ...]:
    """The columns of a row's setting; in a table of before the precision was told, what stands for it."""
    old = connection.execute("PRAGMA user_version").fetchone()[0] == WITHOUT_PRECISION
    return (*SETTING[:-1], "'fp32'") if old else SETTING


def _free_name(path: Path) -> Path:
    number = 1
    while (name := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return name
