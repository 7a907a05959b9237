"""The weight file of a Core ML package (MIL blob storage, version 2), read from its published layout.

Layout (coremltools, mlmodel/src/MILBlob/Blob/StorageFormat.hpp): a 64-byte header (uint32 count, uint32 version),
then for each blob 64 bytes of metadata (uint32 sentinel 0xDEADBEEF, uint32 type, uint64 size in bytes, uint64 offset
of the data) and its data; all 64-byte aligned, little endian. A program names a blob by the offset of its metadata.
It is read here rather than with coremltools so that the library which wrote the file does not also vouch for it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.errors import UsageError

Array = npt.NDArray[np.generic]

_SENTINEL = 0xDEADBEEF
_METADATA = struct.Struct("<IIQQ")
_BLOB_TYPES = {
    1: "FLOAT16",
    2: "FLOAT32",
    3: "UINT8",
    4: "INT8",
    6: "INT16",
    7: "UINT16",
    8: "INT4",
    9: "UINT1",
    10: "UINT2",
    11: "UINT4",
    12: "UINT3",
    13: "UINT6",
    14: "INT32",
    15: "UINT32",
}
_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT16": np.dtype("<f2"),
    "FLOAT32": np.dtype("<f4"),
    "FLOAT64": np.dtype("<f8"),
    "INT8": np.dtype("i1"),
    "UINT8": np.dtype("u1"),
    "INT16": np.dtype("<i2"),
    "UINT16": np.dtype("<u2"),
    "INT32": np.dtype("<i4"),
    "UINT32": np.dtype("<u4"),
    "INT64": np.dtype("<i8"),
    "BOOL": np.dtype("?"),
}
_BITS = {"UINT1": 1, "UINT2": 2, "UINT3": 3, "UINT4": 4, "INT4": 4, "UINT6": 6}


class BlobFile:
    """A weight file, read blob by blob.

    Raises:
        UsageError: the file is missing or is not blob storage version 2.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise self._corrupt("the weight file is missing")
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
        if self._bytes.size < 64 or struct.unpack("<II", self._bytes[:8].tobytes())[1] != 2:
            raise self._corrupt("this is not a Core ML weight file of storage version 2")

    def read(self, offset: int, data_type: str, shape: tuple[int, ...]) -> Array:
        """The blob whose metadata is at `offset`, as an array of `shape` (integers below 8 bits come unpacked).

        Raises:
            UsageError: there is no blob, or its type or size is not what the program says.
        """
        if offset % 64 or offset + 64 > self._bytes.size:
            raise self._corrupt(f"the program names a weight at byte {offset}, where none can be")
        sentinel, kind, size, start = _METADATA.unpack(self._bytes[offset : offset + _METADATA.size].tobytes())
        if sentinel != _SENTINEL:
            raise self._corrupt(f"no weight starts at byte {offset}")
        stored = _BLOB_TYPES.get(kind, f"number {kind}")
        if stored != data_type:
            raise self._corrupt(f"the weight at byte {offset} is {stored}, the program says {data_type}")
        expected = packed_bytes(data_type, int(np.prod(shape, dtype=np.int64)))
        if size != expected or start + size > self._bytes.size:
            raise self._corrupt(f"the weight at byte {offset} has {size} bytes, the program needs {expected}")
        return decode(self._bytes[start : start + size].tobytes(), data_type, shape)

    def _corrupt(self, what: str) -> UsageError:
        return UsageError(what, where=str(self.path), hint="the package is damaged: export it again")


def packed_bytes(data_type: str, count: int) -> int:
    """Bytes that `count` elements take; elements below 8 bits are packed without gaps."""
    if data_type in _BITS:
        return (count * _BITS[data_type] + 7) // 8
    return count * numpy_dtype(data_type).itemsize


def numpy_dtype(data_type: str) -> np.dtype[Any]:
    """The numpy type of a MIL data type of 8 bits or more.

    Raises:
        UsageError: the executor does not know the type.
    """
    if data_type not in _DTYPES:
        raise UsageError(f"the reference executor does not know the Core ML data type {data_type}")
    return _DTYPES[data_type]


def decode(data: bytes, data_type: str, shape: tuple[int, ...]) -> Array:
    """Raw bytes as an array of `shape`."""
    if data_type not in _BITS:
        return np.frombuffer(data, numpy_dtype(data_type)).reshape(shape)
    count = int(np.prod(shape, dtype=np.int64))
    values = unpack_bits(np.frombuffer(data, np.uint8), _BITS[data_type], count).astype(np.int8)
    if data_type == "INT4":
        values = np.where(values > 7, values - 16, values).astype(np.int8)
    return values.reshape(shape)


def unpack_bits(packed: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """The first `count` unsigned integers of `bits` bits each, packed from the least significant bit upwards."""
    stream = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    return (stream << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
