"""How long the trials of `prune.method = "auto"` are."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edgeprune.methods.trials import length_of, rounds_of


@given(st.integers(1, 200_000), st.integers(1, 60_000), st.integers(1, 512))
def test_a_trial_sees_as_many_images_as_it_says(images: int, there: int, batch: int) -> None:
    """To whole batches; of a small data set each image several times."""
    length = length_of(images, there, batch)
    assert length.images <= there
    assert length.trained <= images
    assert images - length.trained < length.epochs * (min(batch, length.images) + 1)


@given(arms=st.integers(1, 200))
def test_so_many_rounds_leave_one(arms: int) -> None:
    left = arms
    for number in range(rounds_of(arms)):
        assert left > 1, number
        left = math.ceil(left / 2)
    assert left == 1
