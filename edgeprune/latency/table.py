"""The latency table: measurements by device, runtime build, threads and operation, in SQLite."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

from edgeprune.errors import UsageError
from edgeprune.graph.operations import OpSignature
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.rows import Row, Setting, fault_of, is_time, read_measurement, read_run, read_staircase
from edgeprune.latency.staircase import Staircase

__all__ = ["LatencyTable", "Setting"]

# What a damaged file raises. SQLite quotes the file in its messages, and Python takes these for UTF-8.
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
SCHEMA_VERSION = 3
SETTING = ("device", "build", "threads", "precision")  # columns of every table, as the fields of a `Setting`
COLUMNS = {"operations": ("operation", "measurement"), "unsupported": ("operation", "reason")}
COLUMNS |= {"models": ("model", "run"), "staircases": ("kind", "staircase")}
SCHEMA = "".join(
    f"CREATE TABLE IF NOT EXISTS {table} (device TEXT, build TEXT, threads INTEGER, precision TEXT, {key} TEXT, "
    f"{value} TEXT NOT NULL, PRIMARY KEY (device, build, threads, precision, {key}));\n"
    for table, (key, value) in COLUMNS.items()
)
WITHOUT_PRECISION = 2  # the last version whose rows do not tell their precision: all are of float files
_WHERE = " AND ".join(f"{column} = ?" for column in SETTING)
_NOT_UNSUPPORTED = f"DELETE FROM unsupported WHERE {_WHERE} AND operation = ?"


class LatencyTable:
    """The table. Every write is a transaction of its own, so that an interrupted probe goes on where it was.

    Several processes may read and write at once. The file is in the user's cache unless a path is given. With
    `read_only` it has to be there, and stays as it is. A row that nobody can have measured (see `rows.fault_of`) is as
    if it were not there: `damaged` counts such, `delete_damaged` deletes them.

    Every method raises UsageError where the file itself is damaged, or cannot be written.
    """

    def __init__(self, path: Path | None = None, *, read_only: bool = False) -> None:
        self.path = self.place(path)
        self._lock = threading.Lock()
        self._read_only, self._without_precision = read_only, False
        if read_only and not self.path.is_file():
            raise UsageError("there is no such latency table", where=str(self.path))
        try:
            if not read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._transaction() as connection:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if read_only and version == 0:
                    raise UsageError("this is no latency table", where=str(self.path))
                self._without_precision = version == WITHOUT_PRECISION
                readable = (0, WITHOUT_PRECISION, SCHEMA_VERSION) if read_only else range(SCHEMA_VERSION + 1)
                if version not in readable:
                    older = "export its rows with the older program, and import them"
                    raise UsageError(
                        f"the latency table is of version {version}, this program reads {SCHEMA_VERSION}",
                        where=str(self.path),
                        hint=older if version < SCHEMA_VERSION else "use the newer program, or move the file away",
                    )
            if not read_only:
                self._bring_up_to_date()
        except OSError as error:
            raise UsageError(
                f"cannot open the latency table: {error.strerror}", where=str(self.path), hint="check the rights"
            ) from error

    def _bring_up_to_date(self) -> None:
        """Make the tables, of an older version's with its rows: whoever comes second finds that it was done."""
        with self._transaction() as connection:
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 1:  # its runs of whole models, which nothing wrote, had other columns
                connection.execute("DROP TABLE IF EXISTS models")
            old = 0 < version <= WITHOUT_PRECISION
            for table in COLUMNS if old else ():
                connection.execute(f"DROP TABLE IF EXISTS old_{table}")
                if _has(connection, table):
                    connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
            for statement in filter(str.strip, SCHEMA.split(";")):
                connection.execute(statement)
            for table, columns in COLUMNS.items() if old else ():
                if _has(connection, f"old_{table}"):
                    rest = ", ".join(columns)
                    connection.execute(
                        f"INSERT INTO {table} ({', '.join(SETTING)}, {rest}) SELECT device, build, threads, 'fp32', "
                        f"{rest} FROM old_{table}"
                    )
                    connection.execute(f"DROP TABLE old_{table}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._without_precision = False

    @staticmethod
    def place(path: Path | None) -> Path:
        """Where a table lies: as given, or the user's own."""
        return path or Path(platformdirs.user_cache_dir("edgeprune")) / "latency.sqlite"

    def put(self, setting: Setting, operation: OpSignature, measurement: Measurement) -> None:
        """Keep an operation's latency (it replaces an older one, or that it was unsupported)."""
        self._put("operations", "operation, measurement", setting, operation.key(), measurement.model_dump_json())
        with self._transaction() as connection:
            connection.execute(_NOT_UNSUPPORTED, (*astuple(setting), operation.key()))

    def get(self, setting: Setting, operation: OpSignature) -> Measurement | None:
        text = self._get("operations", "operation, measurement", setting, operation.key())
        return _sound(read_measurement, text)

    def operations(self, setting: Setting) -> dict[str, Measurement]:
        """Every measured operation by its key."""
        rows = self._all("operations", "operation, measurement", setting)
        return {key: one for key, text in rows.items() if (one := _sound(read_measurement, text)) is not None}

    def medians(self, setting: Setting) -> dict[str, float]:
        """Median seconds of every measured operation by its key."""
        found = self._all("operations", f"operation, {_within('measurement', 'median_s')}", setting)
        return {key: float(seconds) for key, seconds in found.items() if is_time(seconds)}

    def put_unsupported(self, setting: Setting, operation: OpSignature, reason: str) -> None:
        self._put("unsupported", "operation, reason", setting, operation.key(), reason)

    def unsupported(self, setting: Setting) -> dict[str, str]:
        """Operations that could not be measured, by key, with the reason."""
        return {key: str(text) for key, text in self._all("unsupported", "operation, reason", setting).items()}

    def put_model(self, setting: Setting, model: str, run: ModelRun) -> None:
        """Keep a run of a whole model, by what `in_place.model_key` calls it."""
        self._put("models", "model, run", setting, model, run.model_dump_json())

    def get_model(self, setting: Setting, model: str) -> ModelRun | None:
        text = self._get("models", "model, run", setting, model)
        return _sound(read_run, text)

    def delete_model(self, setting: Setting, model: str) -> None:
        """Forget a run of a whole model, if there is one."""
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM models WHERE {_WHERE} AND model = ?", (*astuple(setting), model))

    def models(self, setting: Setting) -> dict[str, ModelRun]:
        """Every run of a whole model by its key."""
        rows = self._all("models", "model, run", setting)
        return {key: one for key, text in rows.items() if (one := _sound(read_run, text)) is not None}

    def model_layers(self, setting: Setting) -> dict[str, list[tuple[str, str, float]]]:
        """Of every run of a whole model the layers alone (see `ModelRun`), by its key."""
        rows = self._all("models", f"model, {_within('run', 'layers')}", setting)
        return {key: layers for key, text in rows.items() if (layers := _layers(text)) is not None}

    def settings(self) -> list[Setting]:
        """Every setting in which a whole model ran."""
        with self._transaction() as connection:
            rows = connection.execute(f"SELECT DISTINCT {', '.join(SETTING)} FROM models").fetchall()
        return [Setting(*row) for row in rows if tuple(map(type, row)) == (str, str, int, str)]

    def put_staircase(self, setting: Setting, kind: str, staircase: Staircase) -> None:
        """Keep how the cost of a kind of operation (see `cost.stair_kind`) grows with its output channels."""
        self._put("staircases", "kind, staircase", setting, kind, staircase.model_dump_json())

    def staircases(self, setting: Setting) -> dict[str, Staircase]:
        rows = self._all("staircases", "kind, staircase", setting)
        return {kind: one for kind, text in rows.items() if (one := _sound(read_staircase, text)) is not None}

    def rows(self) -> list[Row]:
        """Every row that can have been measured, by kind."""
        return [row for _, _, row in self._looked_at() if row is not None]

    def damaged(self) -> int:
        """How many rows nobody can have measured, or that cannot be read."""
        return sum(row is None for _, _, row in self._looked_at())

    def delete_damaged(self) -> int:
        """Delete the damaged rows; returns how many."""
        bad = [(kind, number) for kind, number, row in self._looked_at() if row is None]
        with self._transaction() as connection:
            for kind, number in bad:
                connection.execute(f"DELETE FROM {kind} WHERE rowid = ?", (number,))
        return len(bad)

    def _looked_at(self) -> list[tuple[str, int, Row | None]]:
        """(kind, number in its table, row) of all; no row where it is damaged."""
        found: list[tuple[str, int, Row | None]] = []
        with self._transaction() as connection:
            for kind, columns in COLUMNS.items():
                selected = connection.execute(f"SELECT rowid, {', '.join((*SETTING, *columns))} FROM {kind}")
                found += [(kind, number, row_of(kind, values)) for number, *values in selected]
        return found

    def put_rows(self, rows: Iterable[Row]) -> None:
        """Put rows, all or none; what was measured is unsupported no longer."""
        with self._transaction() as connection:
            for row in rows:
                values = (*astuple(row.setting), row.key)
                columns = ", ".join((*SETTING, *COLUMNS[row.kind]))
                connection.execute(
                    f"INSERT OR REPLACE INTO {row.kind} ({columns}) VALUES (?, ?, ?, ?, ?, ?)", (*values, row.value)
                )
                if row.kind == "operations":
                    connection.execute(_NOT_UNSUPPORTED, values)

    def delete_rows(self, rows: Iterable[Row]) -> None:
        """Delete rows, all or none."""
        with self._transaction() as connection:
            for row in rows:
                where = f"{_WHERE} AND {COLUMNS[row.kind][0]} = ?"
                connection.execute(f"DELETE FROM {row.kind} WHERE {where}", (*astuple(row.setting), row.key))

    def _put(self, table: str, columns: str, setting: Setting, key: str, value: str) -> None:
        names = ", ".join((*SETTING, columns))
        statement = f"INSERT OR REPLACE INTO {table} ({names}) VALUES (?, ?, ?, ?, ?, ?)"
        with self._transaction() as connection:
            connection.execute(statement, (*astuple(setting), key, value))

    def _get(self, table: str, columns: str, setting: Setting, key: str) -> Any:
        name, value = columns.split(", ")
        statement = f"SELECT {value} FROM {table} WHERE {_WHERE} AND {name} = ?"
        with self._transaction() as connection:
            row = connection.execute(statement, (*astuple(setting), key)).fetchone()
        return row[0] if row else None

    def _all(self, table: str, columns: str, setting: Setting) -> dict[str, Any]:
        statement = f"SELECT {columns} FROM {table} WHERE {_WHERE}"
        with self._transaction() as connection:
            return dict(connection.execute(statement, astuple(setting)).fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A short-lived connection, so that the table may be used from any thread and after a fork."""
        place = f"{self.path.absolute().as_uri()}?mode={'ro' if self._read_only else 'rwc'}"
        try:
            with self._lock, closing(sqlite3.connect(place, timeout=60.0, uri=True)) as connection, connection:
                connection.text_factory = _text
                if self._read_only and self._without_precision:
                    show_precision(connection)
                yield connection
        except UNREADABLE as error:
            raise UsageError(
                f"the latency table cannot be used: {error}",
                where=str(self.path),
                hint="check the rights and the disk; if the file is damaged, `edgeprune table repair` puts it aside "
                "and keeps the rows that can be read, or move it away to measure anew",
            ) from error


def show_precision(connection: sqlite3.Connection) -> None:
    """Let an older table, which stays as it is, look as one of today: its rows are of float files."""
    for table, columns in COLUMNS.items():
        rest = ", ".join(columns)
        connection.execute(
            f"CREATE TEMP VIEW IF NOT EXISTS {table} AS SELECT rowid AS rowid, device, build, threads, "
            f"'fp32' AS precision, {rest} FROM main.{table}"
        )


def _has(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
    return found.fetchone() is not None


def row_of(kind: str, values: Sequence[Any]) -> Row | None:
    """A row of what SQLite gave; None where it is damaged."""
    try:
        row = Row.model_validate(dict(zip(Row.model_fields, (kind, *values), strict=True)))
    except ValidationError:
        return None
    return None if fault_of(row) else row


def _sound(read: Callable[[str], Any], text: object) -> Any:
    """What a text of the table says; None where there is none, or it is damaged."""
    if not isinstance(text, str):
        return None
    try:
        return read(text)
    except ValueError:
        return None


def _layers(text: object) -> list[tuple[str, str, float]] | None:
    """The layers of a whole run; None where they are damaged."""
    try:
        return [(str(name), str(key), float(seconds)) for name, key, seconds in json.loads(str(text))]
    except (ValueError, TypeError):
        return None


def _within(column: str, name: str) -> str:
    """SQL for a value within a column's JSON; NULL where that is none."""
    return f"CASE WHEN typeof({column}) = 'text' AND json_valid({column}) THEN json_extract({column}, '$.{name}') END"


def _text(content: bytes) -> str:
    return content.decode(errors="replace")
