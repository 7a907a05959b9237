from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeprune.sparsity.encoding import BadEncoding, decode, encode

Array = npt.NDArray[Any]
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=7)
VALUES = st.sampled_from([0.0, 0.0, 0.0, -0.0, 1.5, -2.25, 1e-38, float("inf")])
WEIGHTS = arrays.arrays(np.float32, SHAPES, elements=VALUES)


def unpacked(values: Array, parameters: Any, shape: tuple[int, ...]) -> Array:
    """TACO's format read from its definition, dimension by dimension, one element at a time."""
    dense = np.zeros(shape, values.dtype)

    def walk(level: int, place: tuple[int, ...], position: int) -> None:
        if level == len(shape):
            dense[tuple(place[d] for d in np.argsort(parameters.traversalOrder))] = values[position]
            return
        dimension = parameters.dimMetadata[level]
        if dimension.format == schema.DimensionType.DENSE:
            for index in range(dimension.denseSize):
                walk(level + 1, (*place, index), position * dimension.denseSize + index)
            return
        segments, indices = dimension.arraySegments.values, dimension.arrayIndices.values
        for next_position in range(segments[position], segments[position + 1]):
            walk(level + 1, (*place, int(indices[next_position])), next_position)

    walk(0, (), 0)
    return dense


@given(WEIGHTS)
def test_what_is_encoded_is_decoded(weights: Array) -> None:
    values, parameters = encode(weights)
    assert len(values) == np.count_nonzero(weights)
    np.testing.assert_array_equal(decode(values, parameters, weights.shape), weights)
    np.testing.assert_array_equal(unpacked(values, parameters, weights.shape), weights)


@pytest.mark.parametrize(
    ("size", "kind"), [(256, np.uint8), (257, np.uint16), (1 << 16, np.uint16), ((1 << 16) + 1, np.int32)]
)
def test_indices_have_the_smallest_type_that_holds_them(size: int, kind: type) -> None:
    weights = np.zeros((2, size), np.float32)
    weights[:, -1] = 1
    values, parameters = encode(weights)
    assert parameters.dimMetadata[-1].arrayIndices.values.dtype == kind
    np.testing.assert_array_equal(decode(values, parameters, weights.shape), weights)


@pytest.mark.parametrize("weights", [np.float32(1).reshape(()), np.zeros((3, 0), np.float32)])
def test_what_has_no_rows_is_refused(weights: Array) -> None:
    with pytest.raises(BadEncoding, match="no rows"):
        encode(weights)


def test_parameters_that_do_not_fit_are_refused() -> None:
    weights = np.eye(3, dtype=np.float32)
    values, parameters = encode(weights)
    with pytest.raises(BadEncoding, match="segments"):
        decode(values[:-1], parameters, (3, 3))
    with pytest.raises(BadEncoding, match="within a row of 2"):
        decode(values, parameters, (3, 2))
    parameters.traversalOrder = [1, 0]
    with pytest.raises(BadEncoding, match="row by row"):
        decode(values, parameters, (3, 3))
