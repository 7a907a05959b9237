"""`csv:FILE`: a table that lists image files, and says what each is.

image,split,label        a class: `label`, its name or number
image,labels             several: names with ; between them
image,cat,dog            or 0 or 1 in a column for each class
image,mask               a file: `mask`, or `target`
image,x,y                numbers: a column for each
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from edgeprune.data.classes import text_order
from edgeprune.data.folders import NoData, Role, role_of
from edgeprune.data.listed import Beside, Classes, Files, ListedPool, Rows
from edgeprune.data.pools import MOST_CLASSES, Source
from edgeprune.errors import DataError, listed
from edgeprune.recipe import TargetKind

_IMAGE, _SPLIT, _LABEL, _LABELS = "image", "split", "label", "labels"
_DELIMITERS = ",;\t"
_FORM = "begin it with a line of column names, as image,label: see docs/data.md"
_NAMED = 3
_MOST_FLOAT = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Row:
    """A line of the table: its number in the file, from 1, and its cells in the order of the columns."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A CSV file's columns and rows, each row as long as the columns."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def at(self, row: Row) -> str:
        """Where a row is, for an error."""
        return f"{self.path}:{row.line}"

    def has(self, column: str) -> bool:
        return column in self.columns

    def column(self, name: str) -> list[str]:
        """The cells of a column.

        Raises:
            DataError: there is no such column, or a cell is empty.
        """
        if name not in self.columns:
            raise DataError(
                f"there is no column `{name}`: it has {listed(self.columns, 8)}",
                where=f"{self.path}:1",
                hint=_FORM,
            )
        place = self.columns.index(name)
        for row in self.rows:
            if not row.cells[place]:
                raise DataError(f"the cell in `{name}` is empty", where=self.at(row), hint="fill it, or remove the row")
        return [row.cells[place] for row in self.rows]

    def others(self) -> tuple[str, ...]:
        """The columns beside the image and its split."""
        return tuple(name for name in self.columns if name not in (_IMAGE, _SPLIT))


def find_table(source: str, kind: TargetKind, *, labels: tuple[str, ...] = ()) -> Source:
    """Find `csv:FILE`: a header, then a row for each image; `,`, `;` or tabs between the cells.

    Args:
        source: as a recipe has it.
        kind: what the task needs beside an image; not what a data set of the user's own gives.
        labels: the model's class names, where they are known.

    Raises:
        NoData: there is no such file.
        DataError: it is no such table, or a row of it cannot be used; names the line.
    """
    table = read_table(Path(source.removeprefix("csv:")).expanduser())
    images = _paths(table, _IMAGE)
    _check_once(table, images)
    make, told = _READERS[kind](table, labels)
    if not table.has(_SPLIT):
        return Source(whole=_pool(table, images, make, None), told=told)
    roles = _roles(table)
    split: dict[Role, list[int]] = {"train": [], "test": [], "validation": []}
    for place, role in enumerate(roles):
        split[role].append(place)
    test = split["test"] or split["validation"]
    if split["test"] and split["validation"]:
        told += (
            f"not used: {len(split['validation'])} validation images of {table.path.name}: validation images are taken "
            "out of training",
        )
    return Source(
        train=_pool(table, images, make, ("train", split["train"])) if split["train"] else None,
        test=_pool(table, images, make, ("test", test)) if test else None,
        told=told,
    )


Make = Callable[[Sequence[int]], Beside]  # of the rows at these places


def _pool(table: Table, images: Sequence[Path], make: Make, part: tuple[str, list[int]] | None) -> ListedPool:
    where, places = (
        (str(table.path), list(range(len(images)))) if part is None else (f"{table.path} ({part[0]})", part[1])
    )
    path = table.path.absolute()
    return ListedPool(where, path.parent, tuple(images[i] for i in places), make(places), path)


def read_table(path: Path) -> Table:
    """Read a CSV file: UTF-8, with a header.

    Raises:
        NoData: there is no such file.
        DataError: it is no text, has no header or no row, or a row has more or fewer cells than it.
    """
    if not path.is_file():
        raise NoData("no such CSV file", where=str(path), hint="check [data] in the recipe")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("the CSV file is no text in UTF-8", where=str(path), hint="save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"the CSV file cannot be read: {error.strerror}", where=str(path)) from error
    header = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header.count)  # the first where there is none
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[Row] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append(Row(reader.line_num, tuple(cell.strip() for cell in cells)))
    except csv.Error as error:
        raise DataError(
            f"the CSV file cannot be read: {error}",
            where=f"{path}:{reader.line_num}",
            hint='quotes stand around a whole cell, and are doubled within it: "a ""b"" c"',
        ) from error
    if not rows:
        raise DataError("the CSV file is empty", where=str(path), hint=_FORM)
    return _checked(path, rows[0], tuple(rows[1:]))


def _checked(path: Path, header: Row, rows: tuple[Row, ...]) -> Table:
    known = (_IMAGE, _SPLIT, _LABEL, _LABELS, "mask", "target")
    columns = tuple(name.lower() if name.lower() in known else name for name in header.cells)
    where = f"{path}:{header.line}"
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"two columns are called {twice[0]!r}", where=where, hint="rename or remove one of them")
    if "" in columns:
        raise DataError(f"column {columns.index('') + 1} has no name", where=where, hint=_FORM)
    if not rows:
        raise DataError("the CSV file has a header and no rows", where=str(path), hint="give each image a row")
    for row in rows:
        if len(row.cells) != len(columns):
            raise DataError(
                f"the row has {len(row.cells)} cells, the header {len(columns)}",
                where=f"{path}:{row.line}",
                hint="put quotes around a cell that has the delimiter in it",
            )
    return Table(path, columns, rows)


def _paths(table: Table, column: str) -> tuple[Path, ...]:
    """The files that a column names: absolute, or relative to the table's folder."""
    names, folder = table.column(column), table.path.absolute().parent
    paths = tuple(folder / name for name in names)
    gone = [(row, name) for row, name, path in zip(table.rows, names, paths, strict=True) if not _is_file(path)]
    if gone:
        shown = "; ".join(f"line {row.line}: {name}" for row, name in gone[:_NAMED])
        raise DataError(
            f"{len(gone)} of {len(paths)} files in `{column}` are not there: {shown}",
            where=table.at(gone[0][0]),
            hint="a path is absolute, or relative to the folder of the CSV file",
        )
    return paths


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or no name
        return False


def _check_once(table: Table, images: Sequence[Path]) -> None:
    seen: dict[Path, Row] = {}
    for row, path in zip(table.rows, images, strict=True):
        place = path.resolve()
        if place in seen:
            raise DataError(
                f"the image {path.name} is in line {seen[place].line}, too",
                where=table.at(row),
                hint="give each image one row",
            )
        seen[place] = row


def _roles(table: Table) -> list[Role]:
    roles = [role_of(name) for name in table.column(_SPLIT)]
    for row, name, role in zip(table.rows, table.column(_SPLIT), roles, strict=True):
        if role is None:
            raise DataError(
                f"`{_SPLIT}` is {name!r}, which is no split",
                where=table.at(row),
                hint="write train, validation or test",
            )
    return cast(list[Role], roles)


def _not_used(table: Table, used: str) -> tuple[str, ...]:
    left = [name for name in table.others() if name != used]
    return (f"not used: column {listed(left)} of {table.path.name}",) if left else ()


def _one_class(table: Table, labels: tuple[str, ...]) -> tuple[Make, tuple[str, ...]]:  # noqa: ARG001 - told later
    cells = table.column(_LABEL)
    numbered = all(cell.isascii() and cell.isdigit() and str(int(cell[:20])) == cell for cell in cells)
    if numbered:
        for row, cell in zip(table.rows, cells, strict=True):
            if int(cell) >= MOST_CLASSES:
                raise DataError(
                    f"`{_LABEL}` is {cell}, and a number is that of a class, from 0",
                    where=table.at(row),
                    hint="number the classes 0, 1, 2, ... in the order of the model's outputs, or give them names",
                )
    names = tuple(map(str, range(max(map(int, cells)) + 1))) if numbered else text_order(set(cells))
    place = {name: number for number, name in enumerate(names)}
    made = [place[cell] for cell in cells]
    return lambda rows: Classes(tuple(made[i] for i in rows), names, numbered), _not_used(table, _LABEL)


def _identities(table: Table, labels: tuple[str, ...]) -> tuple[Make, tuple[str, ...]]:  # noqa: ARG001
    cells = table.column(_LABEL)
    names = text_order(set(cells))
    place = {name: number for number, name in enumerate(names)}
    return lambda rows: Classes(tuple(place[cells[i]] for i in rows), names, False), _not_used(table, _LABEL)


def _several_classes(table: Table, labels: tuple[str, ...]) -> tuple[Make, tuple[str, ...]]:
    if not table.has(_LABELS):
        return _switches(table, labels)
    place = table.columns.index(_LABELS)  # an empty cell is an image of no class
    cells = [[name.strip() for name in row.cells[place].split(";") if name.strip()] for row in table.rows]
    there = {name for names in cells for name in names}
    order = labels or text_order(there)
    for row, names in zip(table.rows, cells, strict=True):
        if strange := [name for name in names if name not in order]:
            raise DataError(
                f"{strange[0]!r} is no class of the model: these are {listed(order, 5)}",
                where=table.at(row),
                hint="write it in model.labels as the data name it",
            )
    told = _not_used(table, _LABELS)
    if not labels:
        told += (
            f"the order of the {len(order)} classes of {table.path.name} is that of their names as text: "
            f"{listed(order, 5)} (model.labels says another)",
        )
    values = np.array([[int(name in names) for name in order] for names in map(set, cells)], np.int64)
    return lambda rows: Rows(values[list(rows)], order), told


def _switches(table: Table, labels: tuple[str, ...]) -> tuple[Make, tuple[str, ...]]:
    columns = table.others()
    if not columns:
        raise DataError(
            "no column says of which classes an image is",
            where=f"{table.path}:1",
            hint=f"add one for each, or `{_LABELS}`",
        )
    if labels and set(columns) != set(labels):
        strange = [name for name in columns if name not in labels] or [name for name in labels if name not in columns]
        raise DataError(
            f"the columns are not the model's {len(labels)} classes: {listed(strange, 5)}",
            where=f"{table.path}:1",
            hint="name a column as each of model.labels, and remove the others",
        )
    order = labels or columns
    cells = [table.column(name) for name in order]
    for name, column in zip(order, cells, strict=True):
        for row, cell in zip(table.rows, column, strict=True):
            if cell not in ("0", "1"):
                raise DataError(
                    f"`{name}` is {cell!r}: a class is 0 or 1",
                    where=table.at(row),
                    hint="remove a column that is no class",
                )
    values = np.array(cells, np.int64).T
    return lambda rows: Rows(values[list(rows)], order), ()


def _masks(table: Table, labels: tuple[str, ...]) -> tuple[Make, tuple[str, ...]]:  # noqa: ARG001
    paths = _paths(table, "mask")
    return lambda rows: Files(tuple(paths[i] for i in rows), "mask"), _not_used(table, "mask")


def _values(table: Table, labels: tuple[str, ...]) -> tuple[Make, tuple[str, ...]]:  # noqa: ARG001
    if table.has("target"):
        paths = _paths(table, "target")
        return lambda rows: Files(tuple(paths[i] for i in rows), "values"), _not_used(table, "target")
    if not table.others():
        raise DataError(
            "no column has numbers", where=f"{table.path}:1", hint="add one for each number, or `target`, a file each"
        )
    values = np.array([_numbers(table, name) for name in table.others()], np.float32).T
    return lambda rows: Rows(values[list(rows)]), ()


def _numbers(table: Table, column: str) -> list[float]:
    numbers = []
    for row, cell in zip(table.rows, table.column(column), strict=True):
        try:
            number = float(cell)
        except ValueError:
            number = math.inf
        if abs(number) > _MOST_FLOAT:
            raise DataError(
                f"`{column}` is {cell!r}, which is no number",
                where=table.at(row),
                hint="write numbers as 0.5, and nan where nothing is known; remove a column that is no target",
            )
        numbers.append(number)
    return numbers


_READERS: Mapping[TargetKind, Callable[[Table, tuple[str, ...]], tuple[Make, tuple[str, ...]]]] = {
    "class": _one_class,
    "identity": _identities,
    "classes": _several_classes,
    "mask": _masks,
    "values": _values,
}
