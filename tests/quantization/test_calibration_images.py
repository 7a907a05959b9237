"""Which images calibrate."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import DataError
from edgeprune.quantization.calibration import calibration_images


@given(total=st.integers(1, 60), count=st.integers(1, 60))
def test_they_are_distinct_in_order_and_spread_over_all(total: int, count: int) -> None:
    images = torch.arange(total, dtype=torch.float32).reshape(total, 1, 1, 1).expand(total, 2, 3, 3)
    chosen = calibration_images(images, count)
    assert chosen.shape == (min(total, count), 2, 3, 3)
    assert chosen.is_contiguous()
    numbers = chosen[:, 0, 0, 0].tolist()
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    if count > 1:
        assert numbers[-1] == total - 1
        gaps = {round(b - a) for a, b in pairwise(numbers)}
        assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(0, 3, 4, 4),
        torch.zeros(3, 4, 4),
        torch.full((2, 3, 4, 4), float("nan")),
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
    ],
)
def test_what_cannot_calibrate_is_refused(images: torch.Tensor) -> None:
    with pytest.raises(DataError):
        calibration_images(images)
