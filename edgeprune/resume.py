"""What an interrupted job goes on with: records by name in a folder that is named by what the work depends on.

A record is replaced whole, or grows by a line each. Of a line that a kill left half-written nothing is taken; any other
damage is told: what was measured or judged for hours is not thrown away in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from edgeprune.errors import RunError
from edgeprune.records import first_fault
from edgeprune.runs import read_as, write_atomic

Kind = TypeVar("Kind")
_CONSTANTS = ConfigDict(ser_json_inf_nan="constants")  # a loss may be infinite


class Resumption:
    """One job's records. The folder is made when the first of them is written.

    Args:
        folder: of all such jobs.
        depends: what this job's work depends on, as hashes: with any other its records are not found.
    """

    def __init__(self, folder: Path, *depends: str) -> None:
        self.folder = folder / "-".join(depends) if depends else folder

    def read(self, name: str, kind: type[Kind] | TypeAdapter[Kind]) -> Kind | None:
        """A record, None where there is none.

        Raises:
            RunError: it is damaged.
        """
        file = self.folder / name
        if not file.exists():
            return None
        try:
            return read_as(file, kind)
        except RunError as error:
            raise _damaged(file, error.what) from error

    def write(self, name: str, record: object, kind: TypeAdapter[Any] | None = None) -> None:
        """Put a record in the place of the one there.

        Raises:
            EdgePruneError: the disk is full or the folder cannot be written.
        """
        adapter = kind or TypeAdapter(type(record))
        write_atomic(self.folder / name, adapter.dump_json(record, indent=1))

    def lines(self, name: str, kind: type[Kind]) -> Lines[Kind]:
        """A record that grows, with what is in it by now.

        Raises:
            RunError: it is damaged.
        """
        return Lines(self.folder / name, kind)


class Lines(Generic[Kind]):
    """A record of a line each, which is a named tuple; `known` is what it holds."""

    def __init__(self, file: Path, kind: type[Kind]) -> None:
        self._file = file
        self._adapter: TypeAdapter[Kind] = TypeAdapter(kind, config=_CONSTANTS)
        self.known = self._read()

    def add(self, line: Kind) -> None:
        """Write one more line.

        Raises:
            OSError: it cannot be written.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab") as lines:
            lines.write(self._adapter.dump_json(line) + b"\n")
        self.known.append(line)

    def _read(self) -> list[Kind]:
        text = self._file.read_bytes() if self._file.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:  # what comes next must not be added to half a line
            write_atomic(self._file, whole)
        try:
            return [self._adapter.validate_json(line) for line in whole.splitlines()]
        except ValidationError as error:
            raise _damaged(self._file, f"the record cannot be read: {first_fault(error)}") from error


def _damaged(file: Path, what: str) -> RunError:
    return RunError(
        what, where=str(file), hint="it was damaged or changed by hand: delete it, and its work is done again"
    )
