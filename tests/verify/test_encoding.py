"""Images into a file's input, its outputs back into numbers."""

from __future__ import annotations

import numpy as np
import pytest
from facts import refused
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.artifacts.manifest import TensorSpec
from edgeprune.errors import DataError
from edgeprune.verify.execute import decode_output, encode_input


def spec(**changes: object) -> TensorSpec:
    base = {"name": "x", "shape": (1, 2, 4, 3), "dtype": "float32", "layout": "NHWC"}
    return TensorSpec.model_validate({**base, **changes})


def images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 2, 4)).astype(np.float32)


def test_layouts() -> None:
    batch = images()
    assert np.array_equal(encode_input(batch, spec()), batch.transpose(0, 2, 3, 1))
    assert np.array_equal(encode_input(batch, spec(shape=(1, 3, 2, 4), layout="NCHW")), batch)
    assert encode_input(batch, spec()).flags.c_contiguous


def test_halves_are_rounded_to_even_and_limits_clipped() -> None:
    values = np.array([0.25, 0.75, -0.25, -0.75, 100.0, -100.0], np.float32).reshape(1, 1, 1, 6)
    quantized = spec(shape=(1, 1, 6, 1), dtype="int8", scale=0.5, zero_point=3)
    assert encode_input(values, quantized).ravel().tolist() == [3, 5, 3, 1, 127, -128]
    unsigned = spec(shape=(1, 1, 6, 1), dtype="uint8", scale=0.5, zero_point=3)
    assert encode_input(values, unsigned).ravel().tolist() == [3, 5, 3, 1, 203, 0]


@given(st.floats(1e-4, 10), st.integers(-128, 127), st.lists(st.integers(-128, 127), min_size=1, max_size=20))
def test_what_is_decoded_encodes_to_the_same_steps(scale: float, zero: int, steps: list[int]) -> None:
    stored = np.array(steps, np.int8).reshape(1, 1, 1, -1)
    tensor = spec(shape=(1, 1, len(steps), 1), dtype="int8", scale=scale, zero_point=zero)
    real = decode_output(stored, tensor)
    assert real.dtype == np.float32
    assert np.array_equal(encode_input(real, tensor).ravel(), stored.ravel())


def test_what_does_not_fit_is_refused() -> None:
    with refused(DataError, (1, 4, 2, 3)):
        encode_input(images(), spec(shape=(1, 4, 2, 3)))
    with refused(DataError, "scale", "zero point"):
        encode_input(images(), spec(dtype="int8"))
    broken = images()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        encode_input(broken, spec())
    with refused(DataError, "manifest", "int8"):
        decode_output(np.zeros((1, 2), np.int8), spec(shape=(1, 2), layout="NC"))
