"""Whether a .tflite file is whole: every offset, size and index in it holds, before anything follows them.

Neither the schema's Python code nor the runtime looks: a damaged file reads elsewhere in memory there, or asks for all
of it. A flatbuffer is tables: each begins with the distance back to its vtable, which has the place of each field.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import UsageError

MOST_TABLES = 500_000  # tables and entries of vectors that are looked at
LARGEST = 1 << 30  # bytes of one tensor that is computed
MOST_DIMENSIONS = 8
IDENTIFIER = b"TFL3"
# Bytes of an element by TensorType; strings, resources, variants and packed types have none that is fixed.
_ITEM_BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 8: 8, 9: 1, 10: 8, 11: 16, 12: 8, 15: 4, 16: 2, 18: 2}
_CONV_2D, _DEPTHWISE_CONV_2D, _FULLY_CONNECTED = 3, 4, 9
_WEIGHTED = {_CONV_2D: 4, _DEPTHWISE_CONV_2D: 4, _FULLY_CONNECTED: 2}  # operators with weights -> rank of these
_OPTIONS = {_CONV_2D: 1, _DEPTHWISE_CONV_2D: 2}  # -> the kind of their options
_OUTSIDE = 1  # a buffer of this offset or less lies in the table itself


# What the schema's Python code raises where an operator's options, which are not looked at here, are damaged.
UNREADABLE = (struct.error, ValueError, TypeError, LookupError, OverflowError, ArithmeticError, AttributeError)


class Broken(Exception):
    """What does not hold."""


@dataclass(frozen=True)
class _Table:
    """A table at a place; `size` bytes, its fields' places in the vtable."""

    file: _File
    place: int
    size: int
    vtable: int
    fields: int

    def at(self, field: int, width: int) -> int:
        """Where a field of so many bytes lies; 0 where it is not set."""
        if field >= self.fields:
            return 0
        offset = self.file.number("<H", self.vtable + 4 + 2 * field)
        if not offset:
            return 0
        if offset < 4 or offset + width > self.size:
            raise Broken(f"a field lies outside of its table at byte {self.place}")
        return self.place + offset

    def number(self, field: int, kind: str, default: int = 0) -> int:
        place = self.at(field, struct.calcsize(kind))
        return int(self.file.number(kind, place)) if place else default

    def table(self, field: int) -> _Table | None:
        place = self.at(field, 4)
        return self.file.table(self.file.follow(place)) if place else None

    def vector(self, field: int, width: int) -> tuple[int, int] | None:
        """(place of the first element, count); None where it is not set."""
        place = self.at(field, 4)
        return self.file.vector(self.file.follow(place), width) if place else None

    def numbers(self, field: int, kind: str) -> tuple[int, ...] | None:
        found = self.vector(field, struct.calcsize(kind))
        if found is None:
            return None
        return tuple(int(n) for n in self.file.numbers(kind, *found))

    def tables(self, field: int) -> Iterator[_Table]:
        found = self.vector(field, 4)
        place, count = found or (0, 0)
        for number in range(count):
            yield self.file.table(self.file.follow(place + 4 * number))

    def text(self, field: int) -> None:
        self.vector(field, 1)


class _File:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self._left = MOST_TABLES

    def number(self, kind: str, place: int) -> Any:
        if place < 0 or place + struct.calcsize(kind) > len(self.content):
            raise Broken(f"byte {place} is not in the file, which has {len(self.content)}")
        return struct.unpack_from(kind, self.content, place)[0]

    def numbers(self, kind: str, place: int, count: int) -> tuple[Any, ...]:
        self._count(count)
        return struct.unpack_from(f"<{count}{kind[-1]}", self.content, place)

    def follow(self, place: int) -> int:
        offset = int(self.number("<I", place))
        if not offset:
            raise Broken(f"an offset at byte {place} leads nowhere")
        return place + offset

    def table(self, place: int) -> _Table:
        self._count(1)
        vtable = place - int(self.number("<i", place))
        length, size = int(self.number("<H", vtable)), int(self.number("<H", vtable + 2))
        ends = max(vtable + length, place + size)
        if length < 4 or length % 2 or size < 4 or ends > len(self.content):
            raise Broken(f"the table at byte {place} is not whole")
        return _Table(self, place, size, vtable, (length - 4) // 2)

    def vector(self, place: int, width: int) -> tuple[int, int]:
        count = int(self.number("<I", place))
        if place + 4 + count * width > len(self.content):
            raise Broken(f"the list at byte {place} has {count} entries, which are not in the file")
        return place + 4, count

    def _count(self, more: int) -> None:
        self._left -= more
        if self._left < 0:
            raise Broken(f"it has more than {MOST_TABLES} tables and entries")


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]
    kind: int
    bytes: int  # of its value in the file; 0: it is computed


def read_whole(file: Path) -> bytes:
    """The bytes of a .tflite file that is whole.

    Raises:
        UsageError: the file cannot be read, is no .tflite file, or is damaged.
    """
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be read: {getattr(error, 'strerror', error)}", where=str(file)) from error
    check_tflite(content, str(file))
    return content


def check_tflite(content: bytes, where: str) -> None:
    """Check a .tflite file's content.

    Raises:
        UsageError: it is none, or damaged; says what does not hold.
    """
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise UsageError("this is no .tflite file", where=where)
    try:
        _model(_File(content))
    except Broken as error:
        raise damaged(str(error), where) from error


def damaged(why: object, where: str) -> UsageError:
    """The error of a file that is not whole."""
    return UsageError(f"the file is damaged: {why}"[:600], where=where, hint="export or copy it anew")


def _model(file: _File) -> None:
    model = file.table(file.follow(0))
    codes = [_code(table) for table in model.tables(1)]
    buffers = [_buffer(table) for table in model.tables(4)]
    graphs = [_graph(table, codes, buffers) for table in model.tables(2)]
    model.text(3)
    model.vector(5, 4)
    if not graphs:
        raise Broken("it has no graph")
    for entry in model.tables(6):
        entry.text(0)
        _index(entry.number(1, "<I"), len(buffers), "a buffer of metadata")
    for signature in model.tables(7):
        tensors = graphs[_index(signature.number(4, "<I"), len(graphs), "a signature's graph")]
        signature.text(2)
        for entry in (*signature.tables(0), *signature.tables(1)):
            entry.text(0)
            _index(entry.number(1, "<I"), tensors, "a signature's tensor")


def _code(table: _Table) -> int:
    table.text(1)
    code = max(table.number(0, "<b"), table.number(3, "<i"))
    if code < 0:
        raise Broken(f"there is no operator {code}")
    return code


def _buffer(table: _Table) -> int:
    """Bytes of a buffer."""
    _, count = table.vector(0, 1) or (0, 0)
    offset, size = table.number(1, "<Q"), table.number(2, "<Q")
    if offset > _OUTSIDE or size > _OUTSIDE:  # behind the table, in files beyond 2 GB
        if offset + size > len(table.file.content):
            raise Broken("a buffer is not in the file")
        return size
    return count


def _graph(table: _Table, codes: list[int], buffers: list[int]) -> int:
    """Check a graph; returns how many tensors it has."""
    tensors = [_tensor(entry, buffers) for entry in table.tables(0)]
    for field, what in ((1, "an input"), (2, "an output")):
        for tensor in table.numbers(field, "<i") or ():
            _index(tensor, len(tensors), what)
    table.text(4)
    for operator in table.tables(3):
        _operator(operator, codes, tensors)
    return len(tensors)


def _tensor(table: _Table, buffers: list[int]) -> _Tensor:
    shape = table.numbers(0, "<i") or ()
    kind, name = table.number(1, "<b"), f"a tensor of shape {shape}"
    if len(shape) > MOST_DIMENSIONS or any(size < 0 for size in shape):
        raise Broken(f"{name[:200]} cannot be")
    table.text(3)
    table.vector(9, 4)
    if any(size < -1 for size in table.numbers(7, "<i") or ()):
        raise Broken(f"{name} has a signature that cannot be")
    stored = buffers[_index(table.number(2, "<I"), len(buffers), "a tensor's buffer")]
    _quantization(table.table(4), shape)
    sparse = _sparsity(table.table(6), shape)
    wanted = math.prod(shape) * _ITEM_BYTES.get(kind, 1)
    if stored and not sparse and kind in _ITEM_BYTES and stored != wanted:
        raise Broken(f"{name} takes {wanted} bytes, and its buffer has {stored}")
    if wanted > max(LARGEST, stored):
        raise Broken(f"{name} would take {wanted / 1e9:.1f} GB")
    return _Tensor(shape, kind, stored)


def _quantization(table: _Table | None, shape: tuple[int, ...]) -> None:
    if table is None:
        return
    table.vector(0, 4)
    table.vector(1, 4)
    _, scales = table.vector(2, 4) or (0, 0)
    _, points = table.vector(3, 8) or (0, 0)
    if table.number(4, "<B"):
        table.table(5)
        return
    axis = table.number(6, "<i")
    if scales > 1 and not (0 <= axis < len(shape) and shape[axis] == scales):
        raise Broken(f"{scales} scales do not fit a tensor of shape {shape}")
    if scales and points not in (0, 1, scales):
        raise Broken(f"{scales} scales have {points} zero points")


def _sparsity(table: _Table | None, shape: tuple[int, ...]) -> bool:
    if table is None:
        return False
    order, blocks = table.numbers(0, "<i") or (), table.numbers(1, "<i") or ()
    if any(not 0 <= place < len(order) for place in (*order, *blocks)) or len(order) < len(shape):
        raise Broken(f"its sparse dimensions do not fit a tensor of shape {shape}")
    dimensions = list(table.tables(2))
    if len(dimensions) != len(order):
        raise Broken(f"{len(dimensions)} sparse dimensions of {len(order)}")
    for dimension in dimensions:
        if dimension.number(1, "<i") < 0:
            raise Broken("a sparse dimension is negative")
        for kind_field in (2, 4):
            kind = dimension.number(kind_field, "<B")
            values = dimension.table(kind_field + 1)
            if kind and values is None:
                raise Broken("a sparse dimension has no indices")
            if values is not None:
                width = {1: 4, 2: 2, 3: 1}.get(kind)
                if width is None:
                    raise Broken(f"there are no indices of kind {kind}")
                values.vector(0, width)
    return True


def _operator(table: _Table, codes: list[int], tensors: list[_Tensor]) -> None:
    code = codes[_index(table.number(0, "<I"), len(codes), "an operator's kind")]
    inputs, outputs = table.numbers(1, "<i") or (), table.numbers(2, "<i") or ()
    for tensor in (*inputs, *(table.numbers(8, "<i") or ())):
        if tensor != -1:  # an input that is left out
            _index(tensor, len(tensors), "an operator's input")
    for tensor in outputs:
        _index(tensor, len(tensors), "an operator's output")
    table.vector(5, 1)
    table.vector(7, 1)
    kind, options = table.number(3, "<B"), table.table(4)
    if kind and options is None:
        raise Broken("an operator has no options of the kind it says")
    if table.number(11, "<B"):
        table.table(12)
    if code in _WEIGHTED:
        _weighted(code, [tensors[t] if t >= 0 else None for t in (*inputs, -1, -1)[:2]], tensors, outputs)
        if code in _OPTIONS:
            _windows(kind, code, options)


def _weighted(code: int, given: list[_Tensor | None], tensors: list[_Tensor], outputs: tuple[int, ...]) -> None:
    """A convolution or linear layer, whose sizes are computed with."""
    source, weights = given
    rank = _WEIGHTED[code]
    if source is None or weights is None or not outputs or len(weights.shape) != rank or 0 in weights.shape:
        raise Broken("a convolution or linear layer lacks its input, output or weights")
    result = tensors[outputs[0]]
    if code != _FULLY_CONNECTED and (len(source.shape) != rank or len(result.shape) != rank):
        raise Broken(f"a convolution takes {source.shape} and gives {result.shape}")


def _windows(kind: int, code: int, options: _Table | None) -> None:
    if options is None or kind != _OPTIONS[code]:
        raise Broken("a convolution has options of another operator")
    strides = options.number(1, "<i"), options.number(2, "<i")
    first = 5 if code == _DEPTHWISE_CONV_2D else 4
    dilations = options.number(first, "<i", 1), options.number(first + 1, "<i", 1)
    if not all(0 < step < 1 << 16 for step in (*strides, *dilations)) or options.number(0, "<b") not in (0, 1):
        raise Broken(f"a convolution of strides {strides} and dilations {dilations} cannot be")


def _index(number: int, count: int, what: str) -> int:
    if not 0 <= number < count:
        raise Broken(f"{what} is number {number} of {count}")
    return number
