"""What is in a latency table, and carrying rows from one to another: a farm measures, a desk plans."""

from __future__ import annotations

import json
import lzma
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError, field_validator

from edgeprune.errors import UsageError
from edgeprune.latency.measurement import Measurement, ModelRun
from edgeprune.latency.rows import Row, Setting, fault_of
from edgeprune.latency.table import LatencyTable
from edgeprune.recipe import Precision
from edgeprune.records import Record, first_fault

EXPORT_VERSION = 2  # 1: of a program whose rows were of float files alone, which still reads files of such rows
MOST_BYTES = 256 << 20  # of an exported file, unpacked
_HINT = "give a file of: edgeprune table export"
_ROWS = TypeAdapter(list[Row])


class Summary(Record):
    """What a table holds for one device, runtime build, number of threads and precision."""

    device: str
    build: str
    threads: int
    precision: Precision
    operations: int
    noisy: int
    unsupported: int
    models: int
    staircases: int
    newest: float | None  # seconds since 1970


class Moved(Record):
    """What became of rows that were brought to a table."""

    taken: int
    older: int  # left out: the table has one that is as new


class Filter(Record):
    """Which rows are meant; what is None fits all."""

    device: str | None = None  # fingerprint, or its beginning
    build: str | None = None  # runtime build, or its beginning: "litert-2.3.0"
    precision: Precision | None = None  # of the files that ran
    before: float | None = None  # measured before, in seconds since 1970
    noisy: bool = False  # not stable

    @field_validator("device", "build")
    @classmethod
    def _said(cls, text: str | None) -> str | None:
        return text or None  # an empty word, of a variable that is not set, say, names nothing

    def fits(self, row: Row) -> bool:
        if not row.device.startswith(self.device or "") or not row.build.startswith(self.build or ""):
            return False
        if self.precision not in (None, row.precision):
            return False
        if self.before is None and not self.noisy:
            return True
        measurement = _measurement(row)
        if measurement is None:
            return False
        old = self.before is None or measurement.after.time < self.before
        return old and (not self.noisy or measurement.quality != "stable")


def summarize(table: LatencyTable, chosen: Filter | None = None) -> list[Summary]:
    """One line for each setting of the rows that a filter fits (of all, without), in order."""
    groups: dict[Setting, list[Row]] = {}
    for row in table.rows():
        if chosen is not None and not chosen.fits(row):
            continue
        groups.setdefault(row.setting, []).append(row)
    return [_summary(setting, rows) for setting, rows in sorted(groups.items(), key=lambda item: str(item[0]))]


def export_rows(table: LatencyTable, file: Path, chosen: Filter) -> int:
    """Write the rows that a filter fits to a JSON file, compressed where its name ends in `.xz`; returns how many.

    Raises:
        UsageError: there is none.
    """
    rows = [row for row in table.rows() if chosen.fits(row)]
    if not rows:
        raise UsageError("no row fits", where=str(table.path), hint="see: edgeprune table show")
    version = EXPORT_VERSION if any(row.precision != "fp32" for row in rows) else 1
    body = {"edgeprune_latency_table": version, "rows": [row.model_dump(exclude_defaults=True) for row in rows]}
    part = file.with_name(f"{file.name}.part")
    content = (json.dumps(body, indent=0) + "\n").encode()
    part.write_bytes(lzma.compress(content) if file.suffix == ".xz" else content)
    part.replace(file)
    return len(rows)


def import_rows(table: LatencyTable, file: Path) -> Moved:
    """Take the rows of an exported file; of two measurements of one thing the newer stays.

    Raises:
        UsageError: it is no such file; nothing is taken then.
    """
    return bring(table, _read(file))


def bring(table: LatencyTable, rows: Iterable[Row]) -> Moved:
    """Take rows into a table, all in one step; see `import_rows`."""
    here = {row.place: row for row in table.rows()}
    measured = {row.place[1:] for row in here.values() if row.kind == "operations"}
    taken: list[Row] = []
    older = 0
    for row in rows:
        known = here.get(row.place)
        outdone = row.kind == "unsupported" and row.place[1:] in measured
        if outdone or (known is not None and _time(known) >= _time(row)):
            older += 1
        else:
            taken.append(row)
    table.put_rows(taken)
    return Moved(taken=len(taken), older=older)


def forget(table: LatencyTable, chosen: Filter, *, dry_run: bool = False) -> int:
    """Delete the rows that a filter fits; returns how many (they stay with `dry_run`).

    Raises:
        UsageError: the filter names nothing, which would empty the table.
    """
    if chosen == Filter():
        raise UsageError(
            "nothing says which rows are to go",
            hint="name --fingerprint, --build, --precision, --older-than or --noisy",
        )
    rows = [row for row in table.rows() if chosen.fits(row)]
    if not dry_run:
        table.delete_rows(rows)
    return len(rows)


def _summary(setting: Setting, rows: list[Row]) -> Summary:
    def count(kind: Literal["operations", "unsupported", "models", "staircases"]) -> int:
        return sum(row.kind == kind for row in rows)

    measured = [one for row in rows if (one := _measurement(row)) is not None]
    return Summary(
        device=setting.device,
        build=setting.build,
        threads=setting.threads,
        precision=setting.precision,
        operations=count("operations"),
        noisy=sum(one.quality != "stable" for one in measured),
        unsupported=count("unsupported"),
        models=count("models"),
        staircases=count("staircases"),
        newest=max((one.after.time for one in measured), default=None),
    )


def _time(row: Row) -> float:
    """When a row was measured; what has no time is as old as can be."""
    measurement = _measurement(row)
    return 0.0 if measurement is None else measurement.after.time


def _measurement(row: Row) -> Measurement | None:
    """What a row, which is sound, was measured with."""
    if row.kind == "operations":
        return Measurement.model_validate_json(row.value)
    return ModelRun.model_validate_json(row.value).measurement if row.kind == "models" else None


def _read(file: Path) -> list[Row]:
    """The rows of an exported file, each of which can have been measured."""
    body = _body(file)
    version = body.get("edgeprune_latency_table") if isinstance(body, dict) else None
    if version not in (1, EXPORT_VERSION):
        raise UsageError(f"not an exported latency table of version {EXPORT_VERSION}", where=str(file), hint=_HINT)
    try:
        rows = _ROWS.validate_python(body.get("rows"))
    except ValidationError as error:
        raise UsageError(f"a row is damaged: {first_fault(error)}", where=str(file), hint=_HINT) from error
    tomorrow = time.time() + 86400
    for number, row in enumerate(rows):
        why = fault_of(row) or ("measured in the future" if _time(row) > tomorrow else "")
        if why:
            raise UsageError(
                f"a row is damaged: {why} (number {number}, of {row.kind})"[:600],
                where=str(file),
                hint="nothing was taken; export the table anew (`edgeprune table repair` deletes damaged rows there)",
            )
    return rows


def _body(file: Path) -> Any:
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if file.suffix == ".xz":
            content = _unpacked(content)
        if len(content) > MOST_BYTES:
            raise UsageError(f"it has more than {MOST_BYTES >> 20} MB", where=str(file), hint=_HINT)
        return json.loads(content)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except (lzma.LZMAError, EOFError, MemoryError) as error:
        raise UsageError(f"cannot be unpacked: {error}", where=str(file), hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}"[:300], where=str(file), hint=_HINT) from error


def _unpacked(content: bytes) -> bytes:
    """What was compressed, up to one byte more than is allowed."""
    unpacker = lzma.LZMADecompressor(memlimit=MOST_BYTES)
    unpacked = unpacker.decompress(content, MOST_BYTES + 1)
    if not unpacker.eof and len(unpacked) <= MOST_BYTES:
        raise EOFError("it was cut off")
    return unpacked
