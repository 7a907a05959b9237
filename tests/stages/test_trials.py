"""Short trainings: their rate rises as slowly as that of the training that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.recipe import TuneSection
from edgeprune.stages.trials import trial_settings


@given(st.integers(1, 100_000), st.integers(128, 50_000), st.floats(0.0, 0.9), st.integers(0, 30))
def test_a_trial_warms_up_for_as_many_steps_as_the_whole(images: int, there: int, warmup: float, epochs: int) -> None:
    whole = TuneSection(epochs=epochs, warmup=warmup, batch_size=128)
    trial = trial_settings(whole, images, there)
    steps = trial.epochs * max(1, min(images, there) // 128)
    rising = warmup * max(1, epochs) * (there // 128)
    assert trial.warmup * steps == pytest.approx(min(rising, steps / 2))
    assert trial.epochs == max(1, round(images / there))
    assert trial.model_copy(update={"epochs": epochs, "warmup": warmup}) == whole


def test_a_tenth_of_a_training_rises_for_over_a_third_of_its_steps() -> None:
    """ResNet-20's trials: 249 steps of one epoch, for 5 epochs of 382 steps that rise for 95 of them."""
    assert trial_settings(TuneSection(epochs=5), 31_980, 49_000).warmup == pytest.approx(0.05 * 5 * 382 / 249)
