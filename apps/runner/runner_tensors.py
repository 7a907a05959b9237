"""What goes into a model and comes out of it, row by row: which tensor is which, whether it fits, and .npy files.

Runs on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# On a device the files of this folder lie side by side; here they are a package.
if not __package__:
    from runner_runtimes import CaseError, Loaded, Spec  # type: ignore[import-not-found]
else:
    from apps.runner.runner_runtimes import CaseError, Loaded, Spec

Array = npt.NDArray[Any]


def input_places(model: Loaded, names: list[str] | None, count: int) -> list[int]:
    """For each of so many given inputs, its place in the file.

    Raises:
        CaseError: the file takes another number, or has no input of a name.
    """
    if len(model.specs) != count:
        raise CaseError("input", f"the file takes {len(model.specs)} inputs, and {count} were given")
    if names is not None and len(names) != count:
        raise CaseError("input", f"{count} inputs were given, and {len(names)} names")
    return _places("input", model.input_names, names, ordered=model.ordered)


def output_places(model: Loaded, names: list[str] | None) -> list[int]:
    """The place in the file of each output that is wanted: all without names.

    Raises:
        CaseError: the file has no output of a name, or gives its outputs no order.
    """
    if not model.output_names:
        raise CaseError("load", "the file has no output")
    return _places("output", model.output_names, names, ordered=model.ordered)


def _places(kind: str, known: list[str], wanted: list[str] | None, *, ordered: bool) -> list[int]:
    if wanted is None:
        if not ordered and len(known) > 1:
            raise CaseError("input", f"the file has {len(known)} {kind}s and gives them no order: name them")
        return list(range(len(known)))
    if not any(known):  # this kind of file has no names, only an order
        if len(wanted) != len(known):
            raise CaseError("input", f"the file has {len(known)} {kind}s without names, not {len(wanted)}")
        return list(range(len(known)))
    left: list[str | None] = list(known)
    found: list[int] = []
    for name in wanted:
        if name not in left:
            raise CaseError("input", f"the file has no {kind} {name}; it has {', '.join(known)}")
        found.append(left.index(name))
        left[found[-1]] = None  # the next one of that name is another
    return found


def check_fit(arrays: Sequence[Array], specs: Sequence[Spec]) -> None:
    """See that arrays (N, ...) of as many rows each fit the inputs they are for.

    Raises:
        CaseError: one does not.
    """
    for number, (array, (shape, dtype)) in enumerate(zip(arrays, specs, strict=True), start=1):
        given, takes = f"{array.dtype} {array.shape}", f"the file takes {dtype} {shape}"
        rows = array.shape[:1]
        if shape[:1] != (1,) or array.dtype != dtype or array.shape[1:] != shape[1:] or rows in ((), (0,)):
            which = f"input {number} of {len(specs)} is" if len(specs) > 1 else "the inputs are"
            raise CaseError("input", f"{which} {given}, {takes}")
        if rows != arrays[0].shape[:1]:
            raise CaseError("input", f"input {number} of {len(specs)} has {rows[0]} rows, input 1 {len(arrays[0])}")


class RowWriter:
    """A .npy file that is written row by row, beside its place, and moved there when it is whole."""

    def __init__(self, place: str, count: int) -> None:
        self.place = place
        self._count = count
        self._stream = Path(place + ".partial").open("wb")  # noqa: SIM115  # until it is finished or discarded
        self._row: tuple[tuple[int, ...], np.dtype[Any]] | None = None

    def write(self, value: Array) -> None:
        """Append an output, without its batch of 1.

        Raises:
            CaseError: it has another shape than those before.
        """
        row = value[0] if value.ndim and value.shape[0] == 1 else value
        if self._row is None:
            if row.dtype.kind not in "fiub":
                raise CaseError("load", f"the output has elements of type {row.dtype}, which cannot be saved")
            self._row = row.shape, row.dtype
            empty: Array = np.empty((0,), row.dtype)
            header = {**np.lib.format.header_data_from_array_1_0(empty), "shape": (self._count, *row.shape)}
            np.lib.format.write_array_header_1_0(self._stream, header)
        if (row.shape, row.dtype) != self._row:
            raise CaseError("run", f"the outputs differ from row to row: {row.dtype} {row.shape} after {self._row[0]}")
        self._stream.write(np.ascontiguousarray(row).tobytes())

    def finish(self) -> None:
        self._stream.close()
        Path(self._stream.name).replace(self.place)

    def discard(self) -> None:
        """Leave nothing of a file that did not become whole."""
        self._stream.close()
        Path(self._stream.name).unlink(missing_ok=True)


def output_files(first: str, count: int) -> list[str]:
    """Where the outputs go: the first to its place, the others beside it."""
    return [first, *(f"{first}.{number}" for number in range(1, count))]
