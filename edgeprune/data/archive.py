"""Arrays of an .npz file, whose heads are looked at before anything of them is unpacked."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeprune.data.folders import NoData
from edgeprune.errors import DataError

Array = npt.NDArray[Any]
_NPY, _NPY_SUFFIX = b"\x93NUMPY", ".npy"
_HINT = "save train_images, train_labels, test_images and test_labels with numpy.savez"
# Of a damaged archive; RuntimeError: it is encrypted, NotImplementedError: packed in a way that Python does not know.
_DAMAGED = (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, KeyError)


def read_arrays(path: Path, names: Iterable[str]) -> tuple[dict[str, Array], tuple[str, ...]]:
    """The arrays of these names that the file has, and the names of all that it holds.

    Raises:
        NoData: there is no such file.
        DataError: it is no .npz file, is damaged, or an array is of objects, lies about its size, or does not fit into
            the memory that is free.
    """
    if not path.is_file():
        raise NoData("no such .npz file", where=str(path), hint="check `source` in [data]")
    try:
        with zipfile.ZipFile(path) as archive:
            there = {entry.filename.removesuffix(_NPY_SUFFIX): entry for entry in archive.infolist()}
            if len(there) < len(archive.infolist()):
                raise DataError("the .npz file has two arrays of one name", where=str(path), hint=_HINT)
            wanted = {name: there[name] for name in names if name in there}
            heads = {name: _head(archive, entry) for name, entry in wanted.items()}
            for name, entry in wanted.items():
                _check_size(path, name, heads[name], entry.file_size)
            _check_memory(path, sum(_bytes_of(*head) for head in heads.values()))
            arrays = {}
            for name, entry in wanted.items():
                with archive.open(entry) as stream:
                    arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
            return arrays, tuple(there)
    except _DAMAGED as error:
        raise DataError(
            f"not an .npz file of plain arrays: {_why(path, error)}", where=str(path), hint=_HINT
        ) from error


def _head(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an array's head says it has."""
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    return shape, dtype


def _bytes_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * dtype.itemsize


def _check_size(path: Path, name: str, head: tuple[tuple[int, ...], np.dtype[Any]], packed_as: int) -> None:
    shape, dtype = head
    if dtype.hasobject:
        raise DataError(f"not an .npz file of plain arrays: `{name}` is of objects", where=str(path), hint=_HINT)
    if min(shape, default=0) < 0 or not 0 <= packed_as - _bytes_of(shape, dtype) <= 1 << 16:
        raise DataError(
            f"`{name}` is damaged: {dtype} of shape {shape} is {_bytes_of(shape, dtype)} bytes, and the file has "
            f"{packed_as} for it",
            where=str(path),
            hint="save it again",
        )


def _check_memory(path: Path, needed: int) -> None:
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"its arrays take {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are free",
            where=str(path),
            hint="save fewer or smaller images, or give them as a folder: files are read when they are needed",
        )


def _why(path: Path, error: Exception) -> str:
    """What the file is, where it is something else than an archive."""
    with path.open("rb") as handle:
        begin = handle.read(16)
    if begin.startswith(_NPY):
        return "it is one array (.npy)"
    if begin.lstrip().startswith((b"<!", b"<html")):
        return "it is a web page"
    return str(error) or type(error).__name__
