"""A .mlpackage on disk: its program (protobuf) and the values in it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgeprune.errors import UsageError
from edgeprune.verify.mil.blobs import Array, BlobFile, decode, numpy_dtype
from edgeprune.verify.mil.messages import messages

_MODEL_PATH = "@model_path/"
_MOST_VALUES = 1 << 28  # of a constant that stands in the program itself


@dataclass(frozen=True)
class TensorType:
    """Type of a value in the program; None stands for a dimension that is free."""

    data_type: str
    shape: tuple[int | None, ...]


@dataclass
class Package:
    """An opened package: `model` is coremltools' Model protobuf, weights are read when they are asked for."""

    path: Path
    folder: Path  # of the model file: what "@model_path" stands for
    model: Any
    _blobs: dict[str, BlobFile] = field(default_factory=dict)

    def constant(self, value: Any) -> Array | str:
        """A constant of the program: a string, or an array of the type and shape that the program declares.

        Raises:
            UsageError: the constant is not a tensor, or its weights cannot be read.
        """
        declared = tensor_type(value.type)
        shape = tuple(size for size in declared.shape if size is not None)
        if value.WhichOneof("value") == "blobFileValue":
            file = value.blobFileValue
            return self._blob_file(file.fileName).read(file.offset, declared.data_type, shape)
        return _immediate(value.immediateValue.tensor, declared.data_type, shape)

    def _blob_file(self, name: str) -> BlobFile:
        if name not in self._blobs:
            relative = PurePosixPath(name.removeprefix(_MODEL_PATH))
            if not name.startswith(_MODEL_PATH) or relative.is_absolute() or ".." in relative.parts or "\0" in name:
                raise UsageError(f"the program reads weights outside its package: {name}", where=str(self.path))
            self._blobs[name] = BlobFile(_inside(self.path, self.folder / relative))
        return self._blobs[name]


def open_package(path: Path) -> Package:
    """Open a .mlpackage that holds an ML program.

    Raises:
        UsageError: it is not a package, or holds another kind of model.
        ToolkitMissing: coremltools (its protobuf definitions) is not installed.
    """
    spec_file = _root_file(path)
    model = messages("Model_pb2").Model()
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model.ParseFromString(spec_file.read_bytes())
    except (OSError, DecodeError) as error:
        raise _damaged(spec_file, "the model cannot be read") from error
    kind = model.WhichOneof("Type")
    if kind != "mlProgram":
        raise UsageError(
            f"the package holds a model of kind {kind}, not an ML program",
            where=str(path),
            hint="convert with convert_to='mlprogram'",
        )
    return Package(path=path, folder=spec_file.parent, model=model)


def tensor_type(message: Any) -> TensorType:
    """The type of a value.

    Raises:
        UsageError: it is a list, tuple, dictionary or state.
    """
    if message.WhichOneof("type") != "tensorType":
        raise UsageError(f"the reference executor knows only tensors, not values of type {message.WhichOneof('type')}")
    tensor = message.tensorType
    sizes = (d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions)
    return TensorType(messages("MIL_pb2").DataType.Name(tensor.dataType), tuple(sizes))


def _immediate(tensor: Any, data_type: str, shape: tuple[int, ...]) -> Array | str:
    kind = tensor.WhichOneof("value")
    if math.prod(shape) > _MOST_VALUES:
        raise UsageError(f"the program says that a constant has the shape {shape}")
    if kind is None:
        return np.zeros(shape, numpy_dtype(data_type))
    values = getattr(tensor, kind).values
    if kind == "strings":
        if len(values) != 1:
            raise UsageError("the reference executor does not know lists of strings")
        return str(values[0])
    if kind == "bytes":
        return decode(values, data_type, shape)
    if len(values) != math.prod(shape):
        raise UsageError(f"the program says that {len(values)} values have the shape {shape}")
    return np.array(values).astype(numpy_dtype(data_type)).reshape(shape)


def _root_file(path: Path) -> Path:
    """The model file that the package's Manifest.json names as its root."""
    manifest = path / "Manifest.json"
    try:
        content = json.loads(manifest.read_bytes())
        relative = PurePosixPath(content["itemInfoEntries"][content["rootModelIdentifier"]]["path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(manifest, "this is not a Core ML package") from error
    outside = relative.is_absolute() or ".." in relative.parts or "\0" in str(relative)
    if outside or not (path / "Data" / relative).is_file():
        raise _damaged(manifest, f"the package has no model at Data/{relative}")
    return _inside(path, path / "Data" / relative)


def _inside(package: Path, file: Path) -> Path:
    """A file of a package; a link that leads out of it is not followed.

    Raises:
        UsageError: it leads out.
    """
    if not file.resolve().is_relative_to(package.resolve()):
        raise UsageError("a link that leads out of the package is not followed", where=str(file))
    return file


def _damaged(file: Path, what: str) -> UsageError:
    return UsageError(what, where=str(file), hint="name a .mlpackage folder; if it is one, export it again")
