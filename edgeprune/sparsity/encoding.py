"""A constant tensor as .tflite's sparse format stores it: the non-zeros, and for each row where they stand.

The format is TACO's (Kjolstad et al. 2017): one storage format for each dimension, in the order in which they are
traversed. Weights are written with all dimensions dense but the last, which is compressed (CSR) over its rows:
`segments[r]:segments[r + 1]` are the places of row r's non-zeros in the values and in `indices`. That is what
XNNPACK unpacks at load; its kernels make their own packing of the dense weights.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from edgeprune.errors import EdgePruneError

Array = npt.NDArray[Any]
_VECTORS = {
    np.dtype(np.uint8): (schema.SparseIndexVector.Uint8Vector, schema.Uint8VectorT),
    np.dtype(np.uint16): (schema.SparseIndexVector.Uint16Vector, schema.Uint16VectorT),
    np.dtype(np.int32): (schema.SparseIndexVector.Int32Vector, schema.Int32VectorT),
}


class BadEncoding(EdgePruneError):
    """These sparsity parameters do not describe a tensor; the message says what is wrong."""


def encode(weights: Array) -> tuple[Array, Any]:
    """The non-zeros of a tensor in row-major order, (count,), and the `SparsityParametersT` that places them.

    A negative zero is a zero. Segments are int32; indices of the smallest type that holds the last dimension.

    Raises:
        BadEncoding: a scalar, or a tensor without elements.
    """
    if weights.ndim == 0 or weights.size == 0:
        raise BadEncoding(f"a tensor of shape {weights.shape} has no rows to store sparsely")
    rows = weights.reshape(-1, weights.shape[-1])
    row, column = np.nonzero(rows)
    segments = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(np.bincount(row, minlength=len(rows)), out=segments[1:])
    parameters = schema.SparsityParametersT()
    parameters.traversalOrder = np.arange(weights.ndim, dtype=np.int32)
    parameters.dimMetadata = [_dense(size) for size in weights.shape[:-1]]
    parameters.dimMetadata.append(_compressed(segments, column.astype(_index_type(weights.shape[-1]))))
    return rows[row, column], parameters


def decode(values: Array, parameters: Any, shape: tuple[int, ...]) -> Array:
    """The dense tensor that `encode` was given, with its zeros positive.

    Raises:
        BadEncoding: not what `encode` writes, or indices outside of the shape.
    """
    formats = [dimension.format for dimension in parameters.dimMetadata or []]
    wanted = [schema.DimensionType.DENSE] * (len(shape) - 1) + [schema.DimensionType.SPARSE_CSR]
    blocks = parameters.blockMap if parameters.blockMap is not None else []
    if formats != wanted or len(blocks) or list(parameters.traversalOrder) != list(range(len(shape))):
        raise BadEncoding("not sparse in the last dimension alone, row by row")
    last = parameters.dimMetadata[-1]
    segments, indices = np.asarray(last.arraySegments.values), np.asarray(last.arrayIndices.values)
    rows = math.prod(shape[:-1])
    counts = np.diff(segments)
    if len(segments) != rows + 1 or segments[0] != 0 or (counts < 0).any() or segments[-1] != len(values):
        raise BadEncoding(f"the segments do not divide {len(values)} values among {rows} rows")
    if len(indices) != len(values) or (len(indices) and not 0 <= indices.min() <= indices.max() < shape[-1]):
        raise BadEncoding(f"the indices do not lie within a row of {shape[-1]}")
    dense = np.zeros((rows, shape[-1]), values.dtype)
    dense[np.repeat(np.arange(rows), counts), indices] = values
    return dense.reshape(shape)


def _index_type(size: int) -> type[np.uint8] | type[np.uint16] | type[np.int32]:
    if size <= 1 << 8:
        return np.uint8
    return np.uint16 if size <= 1 << 16 else np.int32


def _dense(size: int) -> Any:
    dimension = schema.DimensionMetadataT()
    dimension.format, dimension.denseSize = schema.DimensionType.DENSE, size
    return dimension


def _compressed(segments: Array, indices: Array) -> Any:
    dimension = schema.DimensionMetadataT()
    dimension.format = schema.DimensionType.SPARSE_CSR
    dimension.arraySegmentsType, dimension.arraySegments = _vector(segments)
    dimension.arrayIndicesType, dimension.arrayIndices = _vector(indices)
    return dimension


def _vector(values: Array) -> tuple[int, Any]:
    kind, make = _VECTORS[values.dtype]
    vector = make()
    vector.values = values
    return kind, vector
